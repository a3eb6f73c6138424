// What a person does before a page's scripts have come would be lost, or would send a form as an
// address. It is kept, and given when all of them have run: what was typed, chosen or switched, then
// the clicks. No module, so that it runs before the page is drawn.

{
  const filled = new Map(); // a field -> what is in it
  const clicked = new Set();

  const note = ({ target: field }) => {
    filled.delete(field); // in the order of the last changes
    filled.set(field, { value: field.value, checked: field.checked });
  };

  const keep = (event) => {
    const button = event.target.closest("button");
    if (!button || button.form?.hasAttribute("method")) return; // the browser's own to answer
    event.preventDefault();
    event.stopPropagation();
    button.setAttribute("aria-busy", "true");
    clicked.add(button);
  };

  document.addEventListener("input", note, { capture: true });
  document.addEventListener("click", keep, { capture: true });
  document.addEventListener("DOMContentLoaded", () => {
    document.removeEventListener("input", note, { capture: true });
    document.removeEventListener("click", keep, { capture: true });
    for (const [field, { value, checked }] of filled) {
      if (field.type !== "file") field.value = value; // a script may have put its own there
      if (checked !== undefined) field.checked = checked;
      for (const name of ["input", "change"]) field.dispatchEvent(new Event(name, { bubbles: true }));
    }
    for (const button of clicked) {
      button.removeAttribute("aria-busy");
      button.click();
    }
  });
}
