// Makes pages follow what happens. Every page works without this.
//
// The server's pages are the only markup there is: when something happened the page is asked for
// again, and the part that changes is put in place of the old one. Nothing else becomes markup.

const pages = globalThis.trustedTypes?.createPolicy("console", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

// The session of this browser
//
// Its pages live under a path that is in no link. It is remembered in the storage of this origin, which
// no other port of the host can read, so that links in chats find it. Alone it opens nothing.

const SESSION = "countersign.session";
const main = document.getElementById("main");
const base = main?.dataset.base;

function stored(change) {
  try {
    return change(localStorage);
  } catch {
    return null; // A browser without storage signs in again.
  }
}

if (base) stored((storage) => storage.setItem(SESSION, base));
if (document.querySelector("[data-ended]")) stored((storage) => storage.removeItem(SESSION));
const goesOn = document.querySelector("[data-goes-on]")?.dataset.goesOn;
if (goesOn) {
  const session = stored((storage) => storage.getItem(SESSION));
  if (/^\/s\/[\w-]+$/.test(session ?? "")) location.replace(session + goesOn);
}
document.addEventListener("submit", (event) => {
  if ("leaves" in event.target.dataset) stored((storage) => storage.removeItem(SESSION));
});

// Times

function inWords(seconds) {
  const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  if (m) return m < 10 && s ? `${m} min ${s} s` : `${m} min`;
  return `${s} s`;
}

// The server's clock counts: every page says when it was made.
let ahead = 0;

function setClock(page) {
  const now = Date.parse(page.getElementById("main")?.dataset.now ?? "");
  if (now) ahead = now - Date.now();
}

function tick() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const seconds = Math.round((Date.parse(time.dateTime) - now) / 1000);
    const text = seconds > 0 ? `in ${inWords(seconds)}` : seconds === 0 ? "now" : `${inWords(-seconds)} ago`;
    if (time.textContent !== text) time.textContent = text;
    if (seconds <= 0 && "expires" in time.dataset && !time.dataset.over) {
      time.dataset.over = "yes";
      refresh();
    }
  }
  for (const bar of document.querySelectorAll("progress[data-until]")) {
    bar.value = Math.max(0, (Date.parse(bar.dataset.until) - now) / 1000);
  }
}

setInterval(tick, 1000);

// Forms that count once

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!("once" in form.dataset)) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  // Later, so that the pressed button is sent with the form.
  setTimeout(() => form.querySelectorAll("button").forEach((button) => (button.disabled = true)));
});

// A page that comes back from the browser's memory can be answered again.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// The reason under the pointer, and the place it is about

function near(event, on) {
  const reason = event.target.closest?.("[data-reason]")?.dataset.reason;
  if (!reason) return;
  for (const mark of document.querySelectorAll("mark[data-reason]")) {
    mark.classList.toggle("near", on && mark.dataset.reason === reason);
  }
}
document.addEventListener("pointerover", (event) => near(event, true));
document.addEventListener("pointerout", (event) => near(event, false));

// What happens

const place = document.querySelector("[data-live]");
const lamp = document.getElementById("live");
let asking = false;
let again = false;

function say(word, kind) {
  if (!lamp) return;
  lamp.hidden = false;
  lamp.className = `live ${kind}`;
  if (lamp.textContent !== word) lamp.textContent = word;
}

async function refresh() {
  if (!place) return;
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { "x-console-refresh": "yes" }, redirect: "error" });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(pages.createHTML(await answer.text()), "text/html");
    setClock(fresh);
    take(fresh);
    tick();
  } catch {
    // The stream says so when the server is away.
  } finally {
    asking = false;
    if (again) {
      again = false;
      setTimeout(refresh, 250);
    }
  }
}

function take(fresh) {
  const count = fresh.getElementById("waiting-count");
  document.getElementById("waiting-count")?.replaceWith(count);
  document.title = titled(fresh.title);
  if (place.dataset.live === "list") takeList(fresh);
  else takeStanding(fresh);
}

function titled(title) {
  const waiting = Number(document.getElementById("waiting-count")?.dataset.count ?? 0);
  return waiting ? `(${waiting}) ${title}` : title;
}

function takeList(fresh) {
  const [old, list] = [document.getElementById("fresh"), fresh.getElementById("fresh")];
  if (!old || !list) return;
  // Not under somebody's hands: a row that is being opened or a session being ended stays.
  if (old.contains(document.activeElement) && document.activeElement.closest("details[open]")) return;
  const codes = new Set([...old.querySelectorAll(".row-head .code")].map((code) => code.textContent));
  const focused = document.activeElement?.getAttribute?.("href");
  old.replaceChildren(...list.childNodes);
  for (const code of old.querySelectorAll(".row-head .code")) {
    if (!codes.has(code.textContent)) code.closest("li").classList.add("fresh");
    if (focused && code.getAttribute("href") === focused) code.focus();
  }
}

// The statement of a request never changes, so it stays as it is; only where it stands is replaced,
// and the form with what is typed into it stays for as long as the request can be answered.
function takeStanding(fresh) {
  const [old, standing] = [document.getElementById("standing"), fresh.getElementById("standing")];
  if (!old || !standing) return;
  const [form, newForm] = [old.querySelector("form.verdict"), standing.querySelector("form.verdict")];
  const buttons = (of) => [...of.querySelectorAll("button")].map((button) => button.value).join();
  const hadFocus = form?.contains(document.activeElement) ? document.activeElement : null;
  if (form && newForm && buttons(form) === buttons(newForm)) newForm.replaceWith(form);
  old.replaceChildren(...standing.childNodes);
  if (hadFocus?.isConnected) hadFocus.focus();
}

if (place) {
  document.title = titled(document.title);
  const source = new EventSource(`${base}/live`);
  source.addEventListener("ready", () => {
    say("live", "on");
    // Whatever happened between the page and the stream.
    refresh();
  });
  source.addEventListener("error", () => {
    say(source.readyState === EventSource.CLOSED ? "not live: reload" : "reconnecting", "off");
  });
  for (const kind of ["opened", "joined", "reviewed", "escalated", "ended", "ran", "left_over", "resync"]) {
    source.addEventListener(kind, (event) => {
      const { id } = JSON.parse(event.data);
      if (place.dataset.live === "list" || !id || id === place.dataset.request) refresh();
      else refreshCount();
    });
  }
  addEventListener("pagehide", () => source.close());
}

// On the page of one request, others' news only change the number in the navigation.
let countSoon;
function refreshCount() {
  clearTimeout(countSoon);
  countSoon = setTimeout(refresh, 1000);
}

setClock(document);
tick();
