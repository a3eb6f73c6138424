// A button that a new status hides must not take the keyboard's place with it.

export function keepFocus(holder, focused) {
  const elsewhere = document.activeElement !== document.body && document.activeElement !== focused;
  if (!focused || elsewhere) return;
  const shown = (element) => element.checkVisibility() && !element.disabled;
  const next = shown(focused) ? focused : [...holder.querySelectorAll("[data-action], a[href]")].find(shown);
  next?.focus();
}
