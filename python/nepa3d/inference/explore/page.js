// What viser's page lacks: a title, files that are dropped anywhere, the browser's preference for dark pages, taps on
// the scene, and on narrow screens a sheet of controls as wide as the screen that leaves the shapes in view (SHEET in
// session.py).
document.title = "nepa3d explore";
const narrow = "(max-width: 36em)"; // where viser shows the controls as a sheet at the bottom
if (!window.nepa3d) {
  window.nepa3d = true;
  // viser takes a pointer that the canvas has captured for one that drags a handle, and browsers capture every touch.
  const free = ({ target, pointerId, pointerType }) => {
    if (pointerType === "touch" && target.hasPointerCapture(pointerId)) target.releasePointerCapture(pointerId);
  };
  addEventListener("pointerdown", free, true);
  const sheet = '.mantine-Paper-root[style*="position: fixed"]';
  const style = document.createElement("style");
  style.textContent =
    `@media ${narrow} {` +
    ` ${sheet} { width: 100% !important; max-height: 42% !important; }` +
    ` ${sheet} div[style*="width: 20em"] { width: 100% !important; } }`;
  document.head.append(style);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const input = document.querySelector('input[type="file"]');
    if (input && event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
  const dark = "viser-user:dark";
  if (localStorage.getItem(dark) === null && matchMedia("(prefers-color-scheme: dark)").matches) {
    localStorage.setItem(dark, "1");
  }
}
localStorage.setItem("viser-user:narrow", matchMedia(narrow).matches ? "1" : "0");
