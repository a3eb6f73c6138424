// A button that a new status hides must not take the keyboard's place with it.

const shown = (element) => element.checkVisibility() && !element.disabled;

export function keepFocus(holder, focused) {
  const elsewhere = document.activeElement !== document.body && document.activeElement !== focused;
  if (!focused || elsewhere) return;
  const candidates = [focused, ...holder.querySelectorAll("[data-action]"), ...holder.querySelectorAll("a[href]")];
  candidates.find(shown)?.focus();
}
