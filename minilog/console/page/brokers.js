// Brokers: all of them, and one.

const STATES = { running: "✓ running", fenced: "✕ fenced", shutting_down: "! shutting down" };
const STATE_STYLES = { running: "good", fenced: "bad", shutting_down: "warn" };

function stateWord(broker) {
  return el("span", { class: STATE_STYLES[broker.state] || "quiet" }, STATES[broker.state] || broker.state);
}

function brokersTable() {
  const rows = state.brokers.map((broker) => {
    const rate = rates.get(broker.broker_id) || {};
    return [
      link(`broker ${broker.broker_id}`, "broker", broker.broker_id), stateWord(broker), heardWords(broker), count(broker.leaders), count(broker.replicas), bytes(broker.log_bytes),
      perSecond(rate.written), `${bytes(rate.writtenBytes)}`, `${bytes(rate.readBytes)}`, count(broker.at_risk), span(broker.uptime_ms), broker.url,
    ];
  });
  const heads = ["Broker", "State", "Heard by the controller#", "Leads#", "Replicas#", "Logs#", "Records written/s#", "Written/s#", "Read/s#", "At risk#", "Up for#", "Address"];
  return table("Brokers", heads, rows, "none: no broker has registered");
}

function heardWords(broker) {
  return broker.heard_ms_ago === null ? "not known" : `${span(broker.heard_ms_ago)} ago`;
}

function brokersView() {
  return [el("h1", {}, "Brokers"), brokersTable()];
}

function brokerView(id) {
  const broker = brokerNumbered(Number(id));
  if (!broker) return [el("h1", {}, `Broker ${id}`), none("No broker of this number has registered.")];
  const findings = state.health.findings.filter((finding) => finding.broker_id === broker.broker_id);
  const events = state.events.filter(({ event }) => event.broker_id === broker.broker_id).slice(0, 30);
  return [
    el("h1", {}, `Broker ${broker.broker_id}`),
    el("p", {}, stateWord(broker), " · ", /^https?:\/\//.test(broker.url) ? el("a", { href: broker.url }, broker.url) : broker.url, broker.rack ? ` · rack ${broker.rack}` : ""),
    broker.version === null ? el("p", { class: "warn" }, `! It does not answer ${teller()}. What it knows of itself is not shown.`) : null,
    brokerFigures(broker, rates.get(broker.broker_id) || {}),
    findings.length ? findingsList(findings, 0) : [el("h2", {}, "Findings"), none()],
    el("h2", {}, "Replicas"), replicasTable(broker),
    el("h2", {}, "Events"), eventsTable(events),
  ];
}

function brokerFigures(broker, rate) {
  return figures(
    ["Leads", count(broker.leaders), `of ${many(broker.replicas, "replica")}`], ["Logs", bytes(broker.log_bytes), "on its disk"],
    ["Writes", `${perSecond(rate.written)} records/s`, `${bytes(rate.writtenBytes)}/s, ${perSecond(rate.produces)} requests/s`],
    ["Reads", `${bytes(rate.readBytes)}/s`, `${perSecond(rate.fetches)} fetches/s`],
    ["Heard by the controller", heardWords(broker), broker.clock_skew_ms === null ? "" : `its clock is ${span(Math.abs(broker.clock_skew_ms))} ${broker.clock_skew_ms < 0 ? "behind" : "ahead"}`],
    ["Process", `up for ${span(broker.uptime_ms)}`, `version ${broker.version ?? DASH}, ${many(broker.connections, "connection")}, turns ${span(broker.loop_lag_ms)} late`]);
}

function replicasTable(broker) {
  const known = knownBrokers();
  const rows = [];
  for (const topic of state.topics) {
    const marks = topic.partitions.map((partition) => [partition[0], markOf(partition, broker.broker_id, known)]);
    const of = (mark) => marks.filter(([, seen]) => seen === mark).map(([number]) => number);
    if (marks.some(([, mark]) => mark)) rows.push([link(topic.topic, "topic", topic.topic), ...["L", "S", "C", "X"].map((mark) => el("td", { class: "text" }, ranges(of(mark)) || "none"))]);
  }
  return table("Replicas", ["Topic", "Leads", "In sync", "Catching up", "Offline"], rows);
}

// 0, 1, 2, 5 as "0 to 2, 5".
function ranges(numbers) {
  const parts = [];
  for (const number of numbers) {
    const last = parts.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([first, end]) => first === end ? String(first) : `${first} to ${end}`).join(", ");
}
