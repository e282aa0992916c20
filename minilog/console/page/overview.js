// The overview: the verdict, the figures, the grid, and what happened last.

const LEVELS = {
  good: "✓ Well:", warning: "! Warning:", trouble: "✕ Trouble:", unknown: "? Unknown:",
};
const EVENTS_SHOWN = 12;

function teller() {
  const about = state.about;
  return about.role === "controller" ? "the controller" : `broker ${about.broker_id}`;
}

// {level, text}: the state of the cluster in one sentence, and how old what it rests on is.
function verdict() {
  if (!state.about) return { level: "unknown", text: isSilent() || heardAt === null ? "Asking for the state of the cluster." : "" };
  if (isSilent()) {
    return { level: "unknown", text: `${sentence(teller())} has told this page nothing for ${span(silentMs())}. What is shown is as old as that.`.replace(". has", " has") };
  }
  const { findings, findings_left_out: leftOut } = state.health;
  const errors = findings.filter((finding) => !finding.is_warning);
  const first = errors[0] || findings[0];
  if (!first) return state.health.under_replicated ? catchingUp() : allWell();
  const more = findings.length + leftOut - 1;
  const text = `${sentence(first.sentence)}${more ? ` And ${many(more, "more finding")}.` : ""}`;
  return { level: errors.length ? "trouble" : "warning", text };
}

function catchingUp() {
  const number = state.health.under_replicated;
  return { level: "warning", text: `Every partition can be read and written. ${many(number, "partition")} of ${count(state.about.partitions)} ${number === 1 ? "lacks" : "lack"} a replica that is in sync.` };
}

function allWell() {
  const [brokers, partitions] = [state.brokers.length, state.about.partitions];
  const text = partitions
    ? `${many(brokers, "broker runs", "brokers run")}. ${partitions === 1 ? "The one partition has" : `All ${count(partitions)} partitions have`} a leader and every replica in sync.`
    : `${many(brokers, "broker runs", "brokers run")}. There is no topic yet.`;
  return { level: "good", text };
}

function overview() {
  return [
    el("h1", { class: "skip" }, "Overview"),
    mainFigures(), findingsList(), gridSection(),
    el("h2", {}, "Brokers"), brokersTable(),
    el("h2", {}, "Last events"), eventsTable(state.events.slice(0, EVENTS_SHOWN)),
  ];
}

function mainFigures() {
  const { about, health } = state;
  const risk = sumOf("at_risk");
  const lost = state.lost.tails.reduce((sum, tail) => sum + tail.unwritten, 0);
  return figures(
    ["Writes", `${perSecond(rateOf("written"))} records/s`, `${bytes(rateOf("writtenBytes"))}/s from producers`],
    ["Reads", `${bytes(rateOf("readBytes"))}/s`, `${perSecond(rateOf("fetches"))} fetches/s`],
    ["Records at risk", risk === null ? "not told" : count(risk), "acknowledged, not on every replica in sync", risk ? "warn" : null],
    ["Lost records", lost ? `! ${count(lost)}` : "none", lost ? "kept, not written again" : "nothing is kept that was cut", lost ? "bad" : null],
    ["Partitions", count(about.partitions), partitionsNote(health), health.offline ? "bad" : null],
    ["Controller", `epoch ${count(about.controller_epoch)}`, controllerNote(about), isHeard(about) ? null : "bad"],
  );
}

function partitionsNote(health) {
  const parts = [[health.offline, "without a leader"], [health.under_min_isr, "below min ISR"], [health.under_replicated, "not complete"]];
  const told = parts.filter(([number]) => number).map(([number, text]) => `${count(number)} ${text}`);
  return told.length ? told.join(", ") : "all complete";
}

function isHeard(about) {
  return about.controller_heard_ms_ago !== null && about.controller_heard_ms_ago < SILENT_MS;
}

function controllerNote(about) {
  if (about.role === "controller") return "tells this itself";
  if (about.controller_heard_ms_ago === null) return "never heard";
  return `heard ${span(about.controller_heard_ms_ago)} ago${isHeard(about) ? "" : ": what is shown is as old"}`;
}

function findingsList(findings = state.health.findings, leftOut = state.health.findings_left_out) {
  if (!findings.length) return null;
  return [
    el("h2", {}, "Findings"),
    el("ul", { class: "plain findings" }, findings.map((finding) => el("li", { class: finding.is_warning ? null : "error" },
      `${finding.is_warning ? "Warning: " : "Trouble: "}${sentence(finding.sentence)} `, el("span", { class: "quiet" }, `Next: ${sentence(finding.next_step)}`)))),
    leftOut ? el("p", { class: "quiet" }, `And ${count(leftOut)} more. minilog cluster health lists them all.`) : null,
  ];
}

function gridSection() {
  const { topics, about } = state;
  return [
    el("h2", {}, "Brokers and partitions"), legend(),
    topics.length ? topics.map(gridBlock) : none("none: there is no topic"),
    about.left_out ? el("p", { class: "quiet" }, `${count(about.left_out)} more partitions are not shown here.`) : null,
    behindTable(state.behind),
  ];
}

function gridBlock(topic) {
  return el("section", { "data-key": topic.topic },
    el("h3", {}, link(topic.topic, "topic", topic.topic), " ",
      el("span", { class: "quiet" }, `${many(topic.partitions.length, "partition")}, ${topicNote(topic)}`)),
    gridPlace(topic));
}

function topicNote(topic) {
  const offline = topic.partitions.filter((partition) => partition[1] < 0).length;
  const partial = topic.partitions.filter((partition) => partition[4].length < partition[3].length).length;
  if (offline) return `${count(offline)} without a leader`;
  return partial ? `${count(partial)} not complete` : "complete";
}

function behindTable(behind) {
  if (!behind.length) return null;
  const rows = behind.slice(0, 50).map((one) => [
    `${one.topic}-${one.partition}`, String(one.broker_id), one.records === undefined ? "not heard yet" : count(one.records), span(one.behind_ms ?? 0),
  ]);
  return [el("h3", {}, "Behind their leaders"), table("Replicas behind their leaders", ["Partition", "Broker#", "Records behind#", "For#"], rows)];
}

function eventsTable(events) {
  const rows = events.map(({ event }) => [
    when(event.at_ms, now()), levelWord(event.level), el("td", { class: "text" }, sentence(event.sentence)),
  ]);
  return table("Events", ["When", "Level", "What happened"], rows);
}

function levelWord(level) {
  const style = { error: "bad", warning: "warn" }[level] || "quiet";
  return el("span", { class: style }, { error: "✕ error", warning: "! warning" }[level] || level);
}
