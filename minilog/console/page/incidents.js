// Failovers as timelines, and lost records.

const lostRecords = { tail: null, records: null, error: "" };
const KINDS = { refused: "its process was gone", replaced: "another process came in its place", timeout: "it was silent too long", shutdown: "it was stopped" };
const ACKS = ["unknown acks", "acks=0", "acks=1", "more acks"];

function failoversView() {
  const rows = state.failovers.map((info) => [
    whenBelow(info.last_heard_ms), el("td", {}, link(`broker ${info.broker_id}`, "broker", info.broker_id), el("br"), KINDS[info.kind] || info.kind),
    el("td", { class: "text" }, `${many(info.partitions, "partition")}${namesOf(info)}`),
    since(info, info.detected_ms), since(info, info.elected_ms), since(info, info.served_ms), since(info, info.first_write_ms), since(info, info.restored_ms),
    cutOf(info),
  ]);
  return [
    el("h1", {}, "Failovers"),
    el("p", { class: "quiet" }, "Each time is counted from the last sign of life of the broker. “–” has not happened, or is not known. “More than” is counted from the begin of a controller that had not heard it."),
    table("Failovers", ["Last heard", "Broker", "It led", "Detected#", "Elected#", "Served#", "First write#", "Complete again#", "Records cut"], rows, "none: no broker was lost"),
  ];
}

// Those of users first.
function namesOf(info) {
  if (!info.names?.length) return "";
  const names = [...info.names.filter((name) => !name.startsWith("__")), ...info.names.filter((name) => name.startsWith("__"))];
  return `: ${cut(names.slice(0, 4).join(", "), 120)}${info.partitions > 4 ? ", …" : ""}`;
}

function since(info, ms) {
  return ms === null || ms === undefined ? DASH : `${info.is_heard === false ? "more than " : "+"}${span(Math.max(0, ms - info.last_heard_ms))}`;
}

function cutOf(info) {
  return byAcks(info.records_cut || [0, 0, 0, 0]) || "none";
}

function byAcks(numbers) {
  return numbers.map((number, place) => [number, ACKS[place]]).filter(([number]) => number).map(([number, name]) => `${count(number)} with ${name}`).join(", ");
}

function lostView() {
  const { tails, left_out: leftOut, unheard } = state.lost;
  const rows = tails.map((tail) => [
    link(tail.tail, "lost", tail.tail, tail.broker_id), whenBelow(tail.cut_at_ms), `${tail.topic}-${tail.partition}`, `broker ${tail.broker_id}`,
    `${count(tail.base_offset)} to ${count(tail.end_offset - 1)}`, count(tail.records), byAcks(tail.records_by_acks) || "none", bytes(tail.bytes),
    tail.unwritten ? el("span", { class: "bad" }, `✕ ${count(tail.unwritten)} not written again`) : el("span", { class: "good" }, "✓ written again"),
  ]);
  return [
    el("h1", {}, "Lost records"),
    el("p", { class: "quiet" }, "What was cut from the end of a log when another leader went on. It is kept, and can be written again."),
    unheard.length ? el("p", { class: "warn" }, `! Broker ${unheard.join(", ")} has not told what it keeps.`) : null,
    table("Lost records", ["Tail", "Cut", "Partition", "Kept by", "Offsets", "Records#", "Acknowledged", "Size#", "State"], rows, unheard.length ? "none that is known of" : "none"),
    leftOut ? el("p", { class: "quiet" }, `And ${count(leftOut)} older tails. minilog lost list shows them all.`) : null,
  ];
}

function tailView(name, brokerId) {
  const tail = state.lost.tails.find((one) => one.tail === name && String(one.broker_id) === brokerId);
  if (!tail) return [el("h1", {}, name), none("No broker tells of this tail.")];
  return [
    el("h1", {}, name),
    figures(
      ["Records", count(tail.records), byAcks(tail.records_by_acks)], ["Cut", span(now() - tail.cut_at_ms) + " ago", clockTime(tail.cut_at_ms)],
      ["Offsets", `${count(tail.base_offset)} to ${count(tail.end_offset - 1)}`, `up to leader epoch ${count(tail.last_epoch)}`],
      ["State", tail.unwritten ? `✕ ${count(tail.unwritten)} open` : "✓ done", tail.unwritten ? "not written again" : "written again", tail.unwritten ? "bad" : null]),
    el("h2", {}, "What to do"),
    el("pre", { tabindex: "0" }, [`minilog lost show ${shellQuoted(name)}`, `minilog lost export ${shellQuoted(name)}`, `minilog lost replay ${shellQuoted(name)}`].join("\n")),
    el("h2", {}, "The first records"), tailRecords(tail),
  ];
}

function tailRecords(tail) {
  const isHere = state.about.broker_id === tail.broker_id;
  const broker = brokerNumbered(tail.broker_id);
  if (!isHere) {
    const there = broker && /^https?:\/\//.test(broker.url) ? `${broker.url}/${hashOf("lost", tail.tail, tail.broker_id)}` : null;
    return el("p", {}, `Broker ${tail.broker_id} keeps them. `, there ? el("a", { href: there }, "Open this page there") : "It does not say where it is", ".");
  }
  if (lostRecords.error) return errorNote(lostRecords.error);
  if (lostRecords.tail !== tail.tail || !lostRecords.records) return el("p", { class: "quiet" }, "Reading.");
  const rows = lostRecords.records.map((record) => "timestamp" in record ? recordRow(record) : unreadableRow(record));
  return table("Lost records", ["Offset#", "Time", "Key", "Value", "Headers"], rows);
}

async function openTail(name, brokerId) {
  if (String(state.about.broker_id) !== brokerId || lostRecords.tail === name) return;
  Object.assign(lostRecords, { tail: name, records: null, error: "" });
  try {
    lostRecords.records = (await ask(`/v1/lost/${encodeURIComponent(name)}/records?format=text&max_records=${PAGE}`)).records;
  } catch (error) {
    lostRecords.error = error.message;
  }
  draw();
}
