// What viser's page lacks: a title, files that are dropped anywhere, and the browser's preference for dark pages.
document.title = "nepa3d explore";
if (!window.nepa3d) {
  window.nepa3d = true;
  const key = "viser-user:dark";
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const input = document.querySelector('input[type="file"]');
    if (input && event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
  if (localStorage.getItem(key) === null && matchMedia("(prefers-color-scheme: dark)").matches) {
    localStorage.setItem(key, "1");
  }
}
