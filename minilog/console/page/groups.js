// Consumer groups: how far behind they are, who has what, and what a seek would do.

const groups = { list: null, missing: [], error: "", name: null, about: null, lag: null, preview: null, previewError: "" };

async function refreshGroups() {
  if (state.about.role === "controller") return;
  try {
    const found = await ask("/v1/groups");
    const lags = await Promise.all(found.groups.slice(0, 50).map(({ group }) => ask(`/v1/groups/${encodeURIComponent(group)}/lag`).catch(() => null)));
    groups.list = found.groups.map((info, place) => ({ ...info, lag: lags[place] ?? null }));
    Object.assign(groups, { missing: found.missing, error: "" });
  } catch (error) {
    groups.error = error.message;
  }
}

async function refreshGroup(name) {
  if (state.about.role === "controller") return;
  if (groups.name !== name) Object.assign(groups, { name, about: null, lag: null, preview: null, previewError: "" });
  const path = `/v1/groups/${encodeURIComponent(name)}`;
  try {
    const [about, lag] = await Promise.all([ask(path), ask(`${path}/lag`)]);
    if (groups.name === name) Object.assign(groups, { about, lag, error: "" });
  } catch (error) {
    groups.error = error.message;
  }
}

function groupsView() {
  if (state.about.role === "controller") return [el("h1", {}, "Groups"), atBrokers("Groups", "groups")];
  const rows = (groups.list || []).map((info) => [
    link(info.group, "group", info.group), info.state, count(info.members), lagCell(info.lag?.lag), secondsCell(info.lag?.lag_seconds), count(info.lag?.partitions.length),
  ]);
  return [
    el("h1", {}, "Groups"), errorNote(groups.error),
    groups.list || groups.error ? table("Groups", ["Group", "State", "Members#", "Lag, records#", "Lag, time#", "Partitions#"], rows, "none: no group has read anything") : el("p", { class: "quiet" }, "Asking."),
    groups.missing.map((one) => el("p", { class: "warn" }, `! Groups of partition ${one.partition} of __groups are not listed: ${sentence(one.detail)}`)),
    groups.list?.length > 50 ? el("p", { class: "quiet" }, "The lag of the first 50 groups is measured here.") : null,
  ];
}

function errorNote(text) {
  return text ? el("p", { class: "bad" }, `✕ ${sentence(text)}`) : null;
}

function lagCell(lag) {
  if (lag === null || lag === undefined) return "not known";
  return lag ? el("span", { class: "warn" }, count(lag)) : "0";
}

function secondsCell(seconds) {
  return seconds === null || seconds === undefined ? "not known" : seconds ? span(1000 * seconds) : "0 s";
}

function groupView(name) {
  if (state.about.role === "controller") return [el("h1", {}, `Group ${name}`), atBrokers("Groups", "group", name)];
  const { about, lag } = groups;
  if (!about || !lag) return [el("h1", {}, `Group ${name}`), errorNote(groups.error) || el("p", { class: "quiet" }, "Asking.")];
  return [
    el("h1", {}, `Group ${name}`), errorNote(groups.error),
    figures(
      ["State", about.group.state, `epoch ${count(about.group.group_epoch)}`], ["Lag", lag.lag === null ? "not known" : many(lag.lag, "record"), secondsNote(lag)],
      ["Members", count(about.members.length), `assignor ${about.group.assignor || "none"}`],
      ["Coordinator", `broker ${about.coordinator}`, `${many(about.rebalances, "rebalance")}, the last took ${span(about.last_rebalance_ms)}`],
      ["Missed by retention", lag.lost ? `! ${many(lag.lost, "record")}` : "none", "gone before the group read them", lag.lost ? "bad" : null]),
    el("h2", {}, "Partitions"), lagTable(about.members, lag.partitions),
    el("h2", {}, "Members"), membersTable(about.members),
    el("h2", {}, "What a seek would do"), seekForm(), seekPreview(name),
  ];
}

function secondsNote(lag) {
  return lag.lag_seconds === null ? "" : `the oldest unread one is ${lag.lag_seconds ? span(1000 * lag.lag_seconds) : "0 s"} old`;
}

function ownerOf(members, topic, partition) {
  const owns = (member) => (member.owned || []).some((owned) => owned.topic === topic && owned.partitions.includes(partition));
  return members.filter(owns).map((member) => member.member_id).join(", ");
}

function lagTable(members, partitions) {
  const rows = partitions.map((one) => [
    `${one.topic}-${one.partition}`, one.committed === null ? "nothing yet" : count(one.committed), count(one.high_watermark), lagCell(one.lag), secondsCell(one.lag_seconds),
    one.lost ? el("span", { class: "bad" }, `! ${count(one.lost)}`) : "none", ownerOf(members, one.topic, one.partition) || el("span", { class: "quiet" }, "none"),
  ]);
  return table("Lag by partition", ["Partition", "Committed#", "End#", "Lag, records#", "Lag, time#", "Missed#", "Owner"], rows);
}

function membersTable(members) {
  const listed = (entries) => (entries || []).map((entry) => `${entry.topic}: ${entry.partitions.join(", ")}`).join("; ") || "none";
  const rows = members.map((member) => [
    member.member_id, member.client_id || DASH, count(member.member_epoch), el("td", { class: "text" }, listed(member.owned)), el("td", { class: "text" }, listed(member.assignment)), span(member.heartbeat_age_ms),
  ]);
  return table("Members", ["Member", "Client", "Epoch#", "Owns", "Is to own", "Heard before#"], rows);
}

function seekForm() {
  return el("form", { "data-action": "preview-seek" },
    el("label", {}, "To: earliest, latest, +100, -100, =42, @2026-12-01T03:40", el("input", { name: "to", value: "earliest", autocomplete: "off", required: true })),
    el("button", {}, "Preview"));
}

async function previewSeek(to) {
  try {
    groups.preview = { to, rows: await Promise.all(groups.lag.partitions.map((one) => seekRow(one, to))) };
    groups.previewError = "";
  } catch (error) {
    Object.assign(groups, { preview: null, previewError: error.message });
  }
  draw();
}

async function seekRow(one, to) {
  const path = `/v1/topics/${encodeURIComponent(one.topic)}/partitions/${one.partition}/offsets?elsewhere=ask&at=`;
  const first = (await ask(`${path}earliest`)).offset;
  const end = (await ask(`${path}latest`)).offset;
  const target = await seekTarget(one, to, first, end, path);
  return { one, target: Math.min(Math.max(target, first), end), isCut: target < first || target > end };
}

async function seekTarget(one, to, first, end, path) {
  if (to === "earliest") return first;
  if (to === "latest") return end;
  if (/^=\d+$/.test(to)) return Number(to.slice(1));
  if (/^[+-]\d+$/.test(to)) return (one.committed ?? first) + Number(to);
  const time = to.startsWith("@") ? Date.parse(to.slice(1)) || Number(to.slice(1)) : NaN;
  if (!Number.isFinite(time)) throw new Error(`"${to}" is no place; allowed are earliest, latest, +n, -n, =n and @time`);
  return (await ask(`${path}${time}`)).offset;
}

function seekPreview(name) {
  if (groups.previewError) return errorNote(groups.previewError);
  if (!groups.preview) return el("p", { class: "quiet" }, "Nothing is changed here. The preview ends with the command that would do it.");
  const rows = groups.preview.rows.map(({ one, target, isCut }) => [
    `${one.topic}-${one.partition}`, one.committed === null ? "nothing yet" : count(one.committed), `${count(target)}${isCut ? " (nearest there is)" : ""}`, seekWords(one, target),
  ]);
  return [
    table("What the seek would do", ["Partition", "Committed#", "Then#", "Which means"], rows),
    el("p", { class: "quiet" }, "The group must have no members. This does it:"),
    el("pre", { tabindex: "0" }, `minilog group seek ${shellQuoted(name)} --to ${shellQuoted(groups.preview.to)}`),
  ];
}

function seekWords(one, target) {
  if (one.committed === null) return "begins there";
  const moved = target - one.committed;
  if (moved === 0) return "nothing changes";
  return moved > 0 ? `${many(moved, "record")} are skipped` : `${many(-moved, "record")} are read again`;
}
