// Small tools to build elements. Texts only ever arrive through textContent.

const SVG = "http://www.w3.org/2000/svg";
const HUES = 8;

/** h("p", {class: "x", onclick: f, hidden: false}, "text", child): an element. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A symbol of the page's sprite. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export function avatar(id, name) {
  const element = h("span", { class: "avatar", "aria-hidden": "true" });
  setAvatar(element, id, name);
  return element;
}

export function setAvatar(element, id, name) {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  element.dataset.hue = String(hash % HUES);
  setText(element, [...(name || id || "?")][0].toUpperCase());
}

/** Leaves the element alone when it says so already: no needless work, no needless announcement. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the element's children those of `keys`, in this order, and keeps what is there already: `create(key)` builds a
 * missing child, `update(child, key)` brings every child up to date.
 */
export function reconcile(parent, keys, create, update) {
  const existing = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const key of keys) {
    let child = existing.get(key);
    existing.delete(key);
    if (!child) {
      child = create(key);
      child.dataset.key = key;
    }
    update(child, key);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const child of existing.values()) child.remove();
}

// -- times

const timeOfDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const shortDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const longDate = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const fullDate = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });

export function dayOf(time) {
  const date = new Date(time);
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`;
}

function daysAgo(time) {
  const midnight = (value) => new Date(value).setHours(0, 0, 0, 0);
  return Math.round((midnight(Date.now()) - midnight(time)) / 86_400_000);
}

export function clockTime(time) {
  return time ? timeOfDay.format(time) : "";
}

export function listTime(time) {
  if (!time) return "";
  const days = daysAgo(time);
  if (days <= 0) return timeOfDay.format(time);
  if (days === 1) return "Yesterday";
  return days < 7 ? weekday.format(time) : shortDate.format(time);
}

export function dayTitle(time) {
  const days = daysAgo(time);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days < 300 ? longDate.format(time) : fullDate.format(time);
}
