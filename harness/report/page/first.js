// Before anything is shown: the system's theme, so that a dark page does not begin white.
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
