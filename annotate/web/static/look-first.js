// Before anything is drawn: the colours and the text size that this browser remembers. look.js lets people choose them.

(() => {
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("concord:theme");
    const size = Number(localStorage.getItem("concord:text-size"));
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    if (size >= 0.5 && size <= 2) root.style.setProperty("--text-size", size);
  } catch {
    // a browser that stores nothing: the system's colours, the usual size
  }
})();
