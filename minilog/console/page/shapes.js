// The grid of brokers and partitions. It has its own elements, and changes only those that must.

const CELL_PX = 26;
const MARKS = {
  L: "leads", S: "in sync", C: "catching up", X: "offline", U: "not known",
};

function legend() {
  return el("p", { class: "legend" }, Object.entries(MARKS).map(([mark, text]) =>
    el("span", {}, el("span", { class: `cell ${mark}`, "aria-hidden": "true" }, mark), `${mark}: ${text}`)));
}

// The mark of a broker's replica, "" where it has none.
function markOf(partition, brokerId, known) {
  const [, leader, , replicas, isr] = partition;
  if (known.unheard.has(brokerId) && replicas.includes(brokerId)) return "U";
  if (leader === brokerId) return "L";
  if (isr.includes(brokerId)) return "S";
  if (!replicas.includes(brokerId)) return "";
  return known.running.has(brokerId) ? "C" : "X";
}

// unheard: neither the controller tells of them, nor do they answer.
function knownBrokers() {
  const ids = (brokers) => new Set(brokers.map((broker) => broker.broker_id));
  const unheard = isHeard(state.about) ? [] : state.brokers.filter((broker) => broker.version === null);
  return { running: ids(state.brokers.filter((broker) => broker.state !== "fenced")), unheard: ids(unheard) };
}

class Grid {
  constructor(topic, width) {
    this.name = topic.topic;
    this.shape = Grid.shapeOf(topic, width);
    this.cells = []; // by partition: one for each broker, with what it shows
    this.heads = [];
    this.texts = []; // of the heads, as they are shown
    this.elements = this.bands(topic, Grid.perBand(width));
    this.update(topic, knownBrokers());
  }

  static perBand(width) {
    return Math.max(4, Math.floor((width - (width < 600 ? 44 : 84)) / CELL_PX));
  }

  static shapeOf(topic, width) {
    return `${topic.partitions.length} ${Grid.perBand(width)} ${state.brokers.map((broker) => broker.broker_id)}`;
  }

  static cell() {
    const text = document.createTextNode("");
    return { element: el("td", { class: "cell" }, text), text, mark: "" };
  }

  bands(topic, size) {
    const made = [];
    for (let first = 0; first < topic.partitions.length; first += size) {
      made.push(this.band(topic, first, Math.min(first + size, topic.partitions.length)));
    }
    return made;
  }

  band(topic, first, end) {
    const partitions = topic.partitions.slice(first, end);
    for (const partition of partitions) {
      this.heads.push(el("th", { scope: "col" }, String(partition[0])));
      this.cells.push(state.brokers.map(Grid.cell));
      this.texts.push(String(partition[0]));
    }
    const rows = state.brokers.map((broker, place) => el("tr", {},
      el("th", { scope: "row" }, el("span", { class: "long" }, "broker "), String(broker.broker_id)),
      this.cells.slice(first, end).map((cells) => cells[place].element)));
    return el("div", { class: "strip" }, el("table", { class: "band" },
      el("caption", { class: "skip" }, `Replicas of ${topic.topic}, partitions ${partitions[0][0]} to ${partitions.at(-1)[0]}`),
      el("thead", {}, el("tr", {}, el("td"), this.heads.slice(first, end))), el("tbody", {}, rows)));
  }

  update(topic, known) {
    const basis = `${[...known.running]} ${[...known.unheard]}`;
    if (this.partitions === topic.partitions && this.basis === basis) return;
    Object.assign(this, { partitions: topic.partitions, basis });
    topic.partitions.forEach((partition, place) => {
      this.showHead(place, partition);
      state.brokers.forEach((broker, index) => this.showMark(place, index, markOf(partition, broker.broker_id, known)));
    });
  }

  showHead(place, [number, leader]) {
    const text = leader < 0 ? `!${number}` : String(number);
    if (this.texts[place] === text) return;
    this.texts[place] = text;
    this.heads[place].className = leader < 0 ? "off" : "";
    this.heads[place].firstChild.data = text;
  }

  showMark(place, index, mark) {
    const cell = this.cells[place][index];
    if (cell.mark === mark) return;
    cell.mark = mark;
    cell.text.data = mark;
    cell.element.className = `cell ${mark}`;
  }
}

const grids = new Map();

// Where a grid goes. A view that is made anew leaves what is there as it is.
function gridPlace(topic) {
  return el("div", { "data-own": `grid-${topic.topic}`, "data-key": `grid-${topic.topic}`, "data-topic": topic.topic });
}

let gridWidth = 0; // asked for when it may have changed: asking makes the browser lay the page out

function measureGrids(root) {
  const style = getComputedStyle(root);
  gridWidth = root.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

function drawGrids(root) {
  const known = knownBrokers();
  for (const place of root.querySelectorAll("[data-topic]")) drawGrid(place, known, gridWidth);
}

function drawGrid(place, knownNow, width) {
  const topic = topicNamed(place.dataset.topic);
  if (!topic) return;
  const known = grids.get(topic.topic);
  if (known && known.shape === Grid.shapeOf(topic, width) && place.contains(known.elements[0])) {
    known.update(topic, knownNow);
    return;
  }
  const made = new Grid(topic, width);
  place.replaceChildren(...made.elements);
  grids.set(topic.topic, made);
}
