// All topics, and one topic: where each partition begins and ends, who has it, how it is set.

const places = { topic: null, atMs: 0, byPartition: new Map(), error: "" };

function topicsView() {
  const rows = state.topics.map((topic) => [
    link(topic.topic, "topic", topic.topic), count(topic.partitions.length), count(topic.partitions[0]?.[3].length ?? 0),
    count(topic.min_isr), topicState(topic), topic.is_internal ? el("span", { class: "quiet" }, "minilog's own") : link("records", "records", topic.topic, 0),
  ]);
  return [el("h1", {}, "Topics"), table("Topics", ["Topic", "Partitions#", "Replicas#", "Min ISR#", "State", "Content"], rows, "none: there is no topic"), leftOutNote()];
}

function leftOutNote() {
  return state.about.left_out ? el("p", { class: "quiet" }, `${count(state.about.left_out)} more partitions are not told here.`) : null;
}

function topicState(topic) {
  const note = topicNote(topic);
  const style = note.includes("leader") ? "bad" : note === "complete" ? "good" : "warn";
  return el("span", { class: style }, `${{ bad: "✕", warn: "!", good: "✓" }[style]} ${note}`);
}

function topicView(name) {
  const topic = topicNamed(name);
  if (!topic) return [el("h1", {}, name), none("There is no topic of this name.")];
  const settings = Object.entries(topic.config).sort();
  return [
    el("h1", {}, name),
    el("p", { class: "quiet" }, `${many(topic.partitions.length, "partition")}, ${topicNote(topic)} · min ISR ${topic.min_isr} · topic id `, el("code", {}, topic.topic_id)),
    el("section", {}, gridPlace(topic)), legend(),
    el("h2", {}, "Partitions"), partitionsTable(topic),
    places.error ? el("p", { class: "warn" }, `! ${sentence(places.error)}`) : null,
    el("h2", {}, "Settings"),
    table("Settings", ["Setting", "Value"], settings, "none: all as the defaults say"),
  ];
}

function partitionsTable(topic) {
  const known = knownBrokers();
  const rows = topic.partitions.map((partition) => {
    const [number, leader, epoch, replicas, isr] = partition;
    const place = places.topic === topic.topic ? places.byPartition.get(number) : null;
    const missing = replicas.filter((broker) => !isr.includes(broker)).map((broker) => `${broker} ${MARKS[markOf(partition, broker, known)]}`);
    return [
      topic.is_internal ? String(number) : link(String(number), "records", topic.topic, number),
      leader < 0 ? el("span", { class: "bad" }, "✕ none") : `broker ${leader}`, count(epoch), replicas.join(", "), isr.join(", ") || "none",
      missing.length ? el("span", { class: "warn" }, `! ${missing.join(", ")}`) : "none",
      count(place?.log_start_offset), count(place?.high_watermark),
      place && place.high_watermark !== null && place.log_start_offset !== null ? count(place.high_watermark - place.log_start_offset) : DASH,
      perSecond(place?.rate),
    ];
  });
  return table("Partitions", ["Partition", "Leader", "Epoch#", "Replicas", "In sync", "Not in sync", "First offset#", "End#", "Records#", "Records/s#"], rows);
}

async function refreshTopic(name) {
  if (state.about.role === "controller") {
    places.error = "where partitions begin and end only brokers know: open the console of a broker";
    return;
  }
  try {
    const found = await ask(`/v1/topics/${encodeURIComponent(name)}/offsets`);
    notePlaces(name, found.partitions);
    places.error = "";
  } catch (error) {
    places.error = error.message;
  }
}

function notePlaces(name, partitions) {
  const atMs = performance.now();
  const before = places.topic === name ? places.byPartition : new Map();
  const passedS = (atMs - places.atMs) / 1000;
  places.byPartition = new Map(partitions.map((place) => {
    const known = before.get(place.partition)?.high_watermark;
    const isKnown = typeof known === "number" && place.high_watermark !== null;
    return [place.partition, { ...place, rate: isKnown ? Math.max(0, place.high_watermark - known) / passedS : null }];
  }));
  [places.topic, places.atMs] = [name, atMs];
}

// What a controller does not know is looked for at a broker, on the same page.
function atBrokers(what, ...path) {
  const places = state.brokers.filter((broker) => broker.state !== "fenced" && /^https?:\/\//.test(broker.url));
  return [
    el("p", {}, `${what} only brokers know. This is the controller. Open the same page at a broker:`),
    places.length ? el("ul", {}, places.map((broker) => el("li", {}, el("a", { href: `${broker.url}/${hashOf(...path)}` }, `broker ${broker.broker_id} at ${broker.url}`)))) : none("none runs"),
  ];
}
