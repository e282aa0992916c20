// What is known of the cluster: one stream of events, each with the sections that have changed.

const SILENT_MS = 3500;
const RETRY_MS = 1000;

const state = {
  about: null, health: null, brokers: [], topics: [], behind: [], failovers: [], events: [],
  lost: { tails: [], left_out: 0, unheard: [] },
};
const rates = new Map(); // of brokers: what they wrote and read a second
let heardAt = null; // by performance.now()
let heardClock = 0; // the teller's clock then
let onNews = () => {};

let source = null;

// A browser keeps few connections to an address: a page that is left gives its own back.
function watch(listener) {
  onNews = listener;
  connect();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && connect());
}

function connect() {
  const opened = new EventSource("/v1/cluster/live");
  source = opened;
  opened.onmessage = (event) => take(JSON.parse(event.data));
  opened.onerror = () => {
    if (opened.readyState === EventSource.CLOSED) setTimeout(() => source === opened && connect(), RETRY_MS);
  };
}

function take(news) {
  if (news.brokers) news.brokers.forEach(noteRates);
  Object.assign(state, news);
  heardAt = performance.now();
  heardClock = state.about.at_ms;
  onNews(news);
}

// Two looks at counters, and the time between them by the clock that they count by.
function noteRates(broker) {
  const before = rates.get(broker.broker_id);
  if (broker.uptime_ms === null) {
    rates.delete(broker.broker_id);
    return;
  }
  const passed = before ? broker.uptime_ms - before.seen.uptime_ms : 0;
  if (before && passed === 0) return;
  const rate = (name) => (1000 * Math.max(0, broker[name] - before.seen[name])) / passed;
  const isNew = !before || passed < 0;
  rates.set(broker.broker_id, {
    seen: broker,
    written: isNew ? null : rate("written_records"), writtenBytes: isNew ? null : rate("written_bytes"),
    produces: isNew ? null : rate("produces"), readBytes: isNew ? null : rate("read_bytes"), fetches: isNew ? null : rate("fetches"),
  });
}

function rateOf(name) {
  const known = [...rates.values()].map((rate) => rate[name]).filter((rate) => rate !== null);
  return known.length ? known.reduce((sum, rate) => sum + rate, 0) : null;
}

function silentMs() {
  return heardAt === null ? 0 : performance.now() - heardAt;
}

// The time by the clock of whoever tells, so that no clock of this machine makes an age wrong.
function now() {
  return heardAt === null ? Date.now() : heardClock + silentMs();
}

function isSilent() {
  return silentMs() > SILENT_MS;
}

function topicNamed(name) {
  return state.topics.find((topic) => topic.topic === name);
}

function brokerNumbered(id) {
  return state.brokers.find((broker) => broker.broker_id === id);
}

function sumOf(name) {
  const known = state.brokers.map((broker) => broker[name]).filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
}

// JSON of this process. An error has the sentence that it was answered with.
async function ask(path, options = {}) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.detail || `status ${response.status}`), { problem: answer });
  return answer;
}
