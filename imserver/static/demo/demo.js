// Entry of the demo page: who is it, then the chat screen with its connection.

import { ChatScreen } from "./view.js";
import { Chats } from "./chats.js";
import { avatar, h, setAvatar, setText } from "./dom.js";
import { Gateway } from "./gateway.js";
import { Rest, listUsers, loadConfig, logIn } from "./rest.js";

const SAVED_LOGIN = "demo.login";
const KICKED = "You were signed out here, because you signed in somewhere else.";
const REASONS = { 1501: "Your sign-in has expired.", 1506: KICKED };

const byID = (id) => document.getElementById(id);

/** The running session: {me, gateway, screen, chats, rest}, or null on the login screen. */
let session = null;

// -- login screen

function savedLogin() {
  try {
    return JSON.parse(sessionStorage.getItem(SAVED_LOGIN));
  } catch {
    return null;
  }
}

/** `?user=alice`, `#user=alice` or `#alice`. */
function userInAddress() {
  const fragment = decodeURIComponent(location.hash.slice(1));
  return new URLSearchParams(location.search).get("user") ?? fragment.replace(/^user=/, "");
}

function showLogin(message = "") {
  byID("login").hidden = false;
  byID("app").hidden = true;
  setText(byID("login-error"), message);
  if (matchMedia("(pointer: fine)").matches) byID("login-id").focus(); // elsewhere it would raise the keyboard
  renderUsers();
}

async function renderUsers() {
  const list = byID("user-list");
  let users = [];
  try {
    users = await listUsers();
    setText(byID("user-list-status"), users.length ? "" : "Nobody yet. Be the first: choose a user ID below.");
  } catch (error) {
    setText(byID("user-list-status"), `The list of users could not be loaded: ${error.message}`);
  }
  list.replaceChildren(...users.map((user) => userItem(user, () => enter(user.userID, user.nickname))));
}

function userItem({ userID, nickname }, onclick) {
  return h("li", { "data-user": userID }, h(
    "button", { type: "button", class: "user-item", onclick }, avatar(userID, nickname),
    h("span", { class: "user-name" }, nickname || userID), h("span", { class: "user-id" }, userID),
  ));
}

async function enter(userID, nickname = "") {
  setText(byID("login-error"), "");
  byID("login-card").setAttribute("aria-busy", "true");
  try {
    const me = await logIn(userID, nickname);
    sessionStorage.setItem(SAVED_LOGIN, JSON.stringify(me));
    history.replaceState(null, "", location.pathname);
    await start(me);
  } catch (error) {
    showLogin(`Signing in did not work: ${error.message}`);
  } finally {
    byID("login-card").removeAttribute("aria-busy");
  }
}

function leave(message = "") {
  sessionStorage.removeItem(SAVED_LOGIN);
  history.replaceState(null, "", location.pathname);
  session?.gateway.close();
  session?.screen.destroy();
  session = null;
  byID("new-chat").close();
  showLogin(message);
}

// -- session

async function start(me) {
  const { gatewayURL, hasPresence } = await loadConfig();
  const gateway = new Gateway(gatewayURL);
  const rest = new Rest(me.token);
  const chats = new Chats({ me, gateway, rest, storage: sessionStorage, hasPresence });
  const screen = new ChatScreen(chats, me);
  const started = { me, gateway, rest, chats, screen };
  session?.gateway.close();
  session = started;

  gateway.addEventListener("state", ({ detail }) => {
    showConnection(detail);
    if (detail.state === "online") delete me.isFresh;
  });
  gateway.addEventListener("kicked", () => leave(KICKED));
  gateway.addEventListener("refused", ({ detail }) => onRefused(started, detail));
  chats.addEventListener("change", () => screen.reopen());

  byID("login").hidden = true;
  byID("app").hidden = false;
  setText(byID("me-name"), me.nickname || me.userID);
  setText(byID("me-id"), me.userID);
  setAvatar(byID("me-avatar"), me.userID, me.nickname);
  listUsers().then((users) => chats.learnNames(users), () => {});
  gateway.open(me.userID, me.token);
}

/** A token that the server no longer knows (its data is gone, or it expired) is replaced once, without a question. */
async function onRefused({ me, screen }, { errCode, errMsg }) {
  const reason = REASONS[errCode] ?? `The server refused the connection: ${errMsg || errCode}`;
  if (!errCode || errCode === 1506 || me.isFresh) {
    leave(reason);
    return;
  }
  screen.destroy();
  try {
    const fresh = await logIn(me.userID, me.nickname);
    sessionStorage.setItem(SAVED_LOGIN, JSON.stringify(fresh));
    await start({ ...fresh, isFresh: true });
  } catch {
    leave(reason);
  }
}

function showConnection({ state, seconds }) {
  const isOffline = state === "waiting" && !navigator.onLine;
  const shown = isOffline ? "offline" : { waiting: "reconnecting", closed: "offline" }[state] ?? state;
  const words = { connecting: "Connecting…", online: "Online", reconnecting: "Reconnecting", offline: "Offline" }[shown];
  const pill = byID("connection");
  pill.dataset.state = shown;
  // Screen readers hear the state once; the seconds that tick are for the eye.
  setText(byID("connection-spoken"), words);
  const until = isOffline ? `, next try in ${seconds} s` : ` in ${seconds} s`;
  setText(byID("connection-shown"), seconds ? words + until : words);
  byID("connection-retry").hidden = state !== "waiting";
}

// -- new chat

async function openNewChat() {
  const dialog = byID("new-chat");
  byID("new-chat-id").value = "";
  setText(byID("new-chat-error"), "");
  dialog.showModal();
  const users = await listUsers().catch(() => []);
  if (!session) return;
  session.chats.learnNames(users);
  const others = users.filter(({ userID }) => userID !== session.me.userID);
  byID("new-chat-users").replaceChildren(...others.map((user) => userItem(user, () => startChat(user.userID))));
  filterNewChat();
}

function filterNewChat() {
  const word = byID("new-chat-id").value.trim().toLowerCase();
  for (const item of byID("new-chat-users").children) item.hidden = !item.textContent.toLowerCase().includes(word);
}

async function startChat(userID) {
  const error = byID("new-chat-error");
  setText(error, "");
  if (!userID) return;
  if (userID === session.me.userID) {
    setText(error, "That is you. Choose somebody else.");
    return;
  }
  try {
    const users = await session.rest.usersInfo([userID]);
    if (!users.some((user) => user.userID === userID)) {
      setText(error, `There is no user “${userID}”.`);
      return;
    }
    session.chats.learnNames(users);
  } catch (failure) {
    setText(error, failure.errCode === 1004 ? `There is no user “${userID}”.` : `That did not work: ${failure.message}`);
    return;
  }
  byID("new-chat").close();
  session.screen.open(session.chats.startWith(userID));
}

// -- boot

byID("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(byID("login-id").value.trim(), byID("login-nickname").value.trim());
});
byID("sign-out").addEventListener("click", () => leave());
byID("connection-retry").addEventListener("click", () => session?.gateway.retryNow());
for (const button of document.querySelectorAll("[data-action=new-chat]")) button.addEventListener("click", openNewChat);
byID("new-chat-id").addEventListener("input", filterNewChat);
byID("new-chat-cancel").addEventListener("click", () => byID("new-chat").close());
byID("new-chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  startChat(byID("new-chat-id").value.trim());
});
window.addEventListener("online", () => session?.gateway.retryNow());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && session?.gateway.probe());

const wanted = userInAddress();
const saved = savedLogin();
if (saved && (!wanted || wanted === saved.userID)) {
  start(saved).catch((error) => showLogin(`The server cannot be reached: ${error.message}`));
} else if (wanted) {
  enter(wanted);
} else {
  showLogin();
}
