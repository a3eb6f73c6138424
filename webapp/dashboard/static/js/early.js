// A click that comes before a page's scripts would be lost, or would send a form as an address: it
// is kept, and given when all of them have run. No module, so that it runs before the page is drawn.

{
  const kept = new Set();

  const keep = (event) => {
    const button = event.target.closest("button");
    if (!button || button.form?.hasAttribute("method")) return; // the browser's own to answer
    event.preventDefault();
    event.stopPropagation();
    button.setAttribute("aria-busy", "true");
    kept.add(button);
  };

  document.addEventListener("click", keep, { capture: true });
  document.addEventListener("DOMContentLoaded", () => {
    document.removeEventListener("click", keep, { capture: true });
    for (const button of kept) {
      button.removeAttribute("aria-busy");
      button.click();
    }
  });
}
