// Elements out of data, and a view brought up to date without losing focus or selection.
// Whatever comes from the cluster becomes a text node or the value of an attribute, never HTML.

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function link(text, ...path) {
  return el("a", { href: hashOf(...path) }, text);
}

function hashOf(...path) {
  return `#/${path.map((part) => encodeURIComponent(part)).join("/")}`;
}

// A time in two lines, where there is much beside it.
function whenBelow(ms) {
  const [at, ago] = when(ms, now()).split(" · ");
  return ago ? [at, el("br"), el("span", { class: "quiet" }, ago)] : at;
}

function none(what = "none") {
  return el("p", { class: "none" }, what);
}

// heads: names, those that end with "#" are of numbers. rows: lists of cells.
function table(label, heads, rows, empty = "none") {
  if (!rows.length) return none(empty);
  const isNumber = heads.map((head) => head.endsWith("#"));
  const cell = (content, place) => {
    const own = content instanceof HTMLTableCellElement;
    if (own) return content;
    return el(place === 0 ? "th" : "td", { scope: place === 0 ? "row" : null, class: isNumber[place] ? "n" : null }, content);
  };
  const head = heads.map((name, place) => el("th", { scope: "col", class: isNumber[place] ? "n" : null }, name.replace(/#$/, "")));
  return el("div", { class: "wide", role: "region", tabindex: "0", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}

function figures(...entries) {
  return el("dl", { class: "figures" }, entries.map(([name, value, note, level]) =>
    el("div", {}, el("dt", {}, name), el("dd", { class: level || null }, value, note ? el("small", {}, note) : null))));
}

// Make `old` what `fresh` is. Elements that are alike stay the same ones.
function morph(old, fresh) {
  if (fresh.dataset?.own !== undefined && old.dataset?.own === fresh.dataset.own) return;
  morphAttributes(old, fresh);
  const olds = [...old.childNodes];
  const freshes = [...fresh.childNodes];
  freshes.forEach((child, place) => {
    const known = olds[place];
    if (!known) old.append(child);
    else if (isAlike(known, child)) morphNode(known, child);
    else known.replaceWith(child);
  });
  olds.slice(freshes.length).forEach((child) => child.remove());
}

function morphNode(known, child) {
  if (child.nodeType === Node.ELEMENT_NODE) morph(known, child);
  else if (known.data !== child.data) known.data = child.data;
}

function isAlike(known, child) {
  return known.nodeName === child.nodeName && known.nodeType === child.nodeType &&
    (known.nodeType !== Node.ELEMENT_NODE || known.getAttribute("data-key") === child.getAttribute("data-key"));
}

function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.tagName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}
