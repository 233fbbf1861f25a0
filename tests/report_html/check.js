// Run in a copy of the page, at its end: what a reader would stumble over, as {faults, texts, height} in a JSON element.
// A text is a text node that is shown; its box is the box around its letters.
"use strict";
const faults = [];
const shown = element => element.checkVisibility({checkVisibilityCSS: true, checkOpacity: true});
const said = text => JSON.stringify(text.trim().slice(0, 40));
if (OPEN) document.querySelectorAll("details").forEach(details => details.open = true);

if (matchMedia("(prefers-color-scheme: dark)").matches !== (SCHEME === "dark")) faults.push("the scheme is not " + SCHEME);
if (innerWidth !== WIDTH) faults.push(`the window is ${innerWidth} pixels wide`);

function texts() {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || ["SCRIPT", "STYLE"].includes(parent.tagName) || !shown(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects())  // a line each
      if (box.width > 0.5 && box.height > 0.5) found.push({node, parent, box});
  }
  return found;
}

// Letters are smaller than their line: a pixel of overlap is none to see.
function overlaps(all) {
  const lines = [...all].sort((a, b) => a.box.top - b.box.top);
  for (let i = 0; i < lines.length; ++i)
    for (let j = i + 1; j < lines.length && lines[j].box.top < lines[i].box.bottom; ++j) {
      const a = lines[i].box, b = lines[j].box;
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2.5)
        faults.push(`overlap of ${said(lines[i].node.data)} and ${said(lines[j].node.data)}`);
    }
}

function widths(all) {
  if (document.documentElement.scrollWidth > WIDTH) faults.push(`the page scrolls to ${document.documentElement.scrollWidth} pixels: it is wider than the page`);
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (shown(element) && (box.right > WIDTH + 0.5 || box.left < -0.5)) faults.push(`${element.tagName}.${element.className} is wider than the page: ${box.left} to ${box.right}`);
  }
  for (const {node, parent, box} of all)
    for (let at = parent; at; at = at.parentElement) {
      const style = getComputedStyle(at), around = at.getBoundingClientRect();
      const cutsX = style.overflowX !== "visible", cutsY = style.overflowY !== "visible";
      if (at !== document.documentElement && ((cutsX && (box.right > around.right + 1 || box.left < around.left - 1)) || (cutsY && (box.bottom > around.bottom + 1 || box.top < around.top - 1))))
        faults.push(`${said(node.data)} is cut off by ${at.tagName}.${at.className}`);
    }
}

// WCAG 2.2, "contrast (minimum)": relative luminance of sRGB.
const channels = color => color.match(/[\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
function contrasts(all) {
  for (const {node, parent} of all) {
    let behind = parent;
    while (behind && (channels(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const [front, back] = [getComputedStyle(parent).color, behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)"].map(channels).map(luminance);
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) faults.push(`${said(node.data)} has a contrast of ${ratio.toFixed(2)}`);
  }
}

// Plots must be drawn, not only be there: a path with a NaN, or of no size, shows nothing.
function figures() {
  for (const path of document.querySelectorAll("path")) {
    if (/nan|inf/i.test(path.getAttribute("d"))) faults.push(`a path with ${path.getAttribute("d").slice(0, 60)}`);
    const around = path.ownerSVGElement.getBoundingClientRect();
    if (shown(path.ownerSVGElement) && (around.width < 20 || around.height < 10)) faults.push(`a figure of ${around.width} × ${around.height}`);
  }
}

addEventListener("load", async () => {
  const all = texts();
  overlaps(all), widths(all), contrasts(all), figures();
  // A refusal is told a task after the layout that would have asked; the browser is given the time to.
  await new Promise(resolve => setTimeout(resolve, 500));
  for (const address of refused) faults.push(`${address} is asked for`);
  const out = document.createElement("script");
  out.type = "application/json", out.id = "found";
  out.textContent = JSON.stringify({faults: [...new Set(faults)].map(fault => fault.replaceAll("<", "‹")), texts: all.length, height: document.documentElement.scrollHeight});
  document.body.append(out);
});
