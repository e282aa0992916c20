// How numbers, sizes and times are written: always with a unit, and the same everywhere.

const NUMBER = new Intl.NumberFormat("en");
const DASH = "–";

function count(number) {
  return number === null || number === undefined ? DASH : NUMBER.format(number);
}

function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

function bytes(number) {
  if (number === null || number === undefined) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (number >= 1024 && place < units.length - 1) [number, place] = [number / 1024, place + 1];
  return `${place === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[place]}`;
}

function perSecond(number) {
  if (number === null || number === undefined) return DASH;
  return number > 0 && number < 10 ? number.toFixed(1) : count(Math.round(number));
}

function span(ms) {
  if (ms === null || ms === undefined) return DASH;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.round((s % 86400) / 3600)} h`;
}

function pad(number, width = 2) {
  return String(number).padStart(width, "0");
}

function clockTime(ms) {
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return `${day} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

// When, both ways: "2026-12-01 03:40:12.345 · 12 s ago".
function when(ms, nowMs) {
  if (ms === null || ms === undefined) return DASH;
  const age = nowMs - ms;
  return `${clockTime(ms)} · ${age >= 0 ? `${span(age)} ago` : `in ${span(-age)}`}`;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
