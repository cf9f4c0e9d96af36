"use strict";
for (const box of document.querySelectorAll(".command")) {
  const text = box.querySelector("pre"), button = box.querySelector("button"), status = box.nextElementSibling;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const area = document.createElement("textarea");
    area.value = text.textContent;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    let copied = false;
    try { copied = document.execCommand("copy"); } catch {}
    area.remove();
    if (!copied) {
      try { await navigator.clipboard.writeText(text.textContent); copied = true; } catch {}
    }
    button.focus();
    status.textContent = copied ? "Copied." : "The browser does not allow it: select the line and copy it.";
    if (!copied) getSelection().selectAllChildren(text);
  });
}
