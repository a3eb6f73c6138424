// A button that a new status hides must not take the keyboard's place with it.

const shown = (element) => element.checkVisibility() && !element.disabled;

// What is focused may also be the button of a dialog that has just closed.
export function keepFocus(holder, focused) {
  const active = document.activeElement;
  const elsewhere = active !== document.body && active !== focused && shown(active);
  if (!focused || elsewhere) return;
  const candidates = [focused, ...holder.querySelectorAll("[data-action]"), ...holder.querySelectorAll("a[href]")];
  candidates.find(shown)?.focus();
}
