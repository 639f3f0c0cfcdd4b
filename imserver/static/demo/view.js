// The chat screen: list of chats, open chat, composer. Reads the model and calls it; holds no knowledge of its own.

import { markOf } from "./chats.js";
import { avatar, clockTime, dayOf, dayTitle, h, icon, listTime, reconcile, setAvatar, setText } from "./dom.js";

/** Messages of one sender that are closer than this form a block. */
const BLOCK_MS = 5 * 60_000;
/** So near to the end counts as the end. */
const NEAR_END_PX = 48;
/** So near to the start, older messages are fetched. */
const NEAR_START_PX = 240;

const MARKS = {
  sending: { icon: "clock", label: "Sending" },
  sent: { icon: "tick", label: "Sent" },
  delivered: { icon: "ticks", label: "Delivered" },
  read: { icon: "ticks", label: "Read" },
  failed: { icon: "alert", label: "Not sent" },
};

const byID = (id) => document.getElementById(id);

export class ChatScreen {
  #model;
  #me;
  #chat = null;
  #isScheduled = false;
  #isAtEnd = true;
  #unseen = 0;
  #abort = new AbortController();
  #ui = Object.fromEntries([
    "app", "chat-list", "chat-list-empty", "chat-empty", "chat-pane", "chat-avatar", "chat-title", "chat-status",
    "messages", "message-list", "history-status", "jump", "jump-count", "composer", "composer-input", "announcer",
    "back", "peers-typing",
  ].map((id) => [id, byID(id)]));
  #narrow = matchMedia("(max-width: 759px)");

  constructor(model, me) {
    this.#model = model;
    this.#me = me;
    const { signal } = this.#abort;
    const ui = this.#ui;
    const on = (target, type, listener) => target.addEventListener(type, listener, { signal });
    on(model, "change", () => this.#schedule());
    on(model, "incoming", ({ detail }) => this.#onIncoming(detail));
    on(ui["chat-list"], "keydown", (event) => this.#moveInList(event));
    on(ui.messages, "scroll", () => this.#onScroll());
    on(ui.jump, "click", () => this.#scrollToEnd());
    on(ui.back, "click", () => this.#goBack());
    on(ui.composer, "submit", (event) => this.#onSubmit(event));
    on(ui["composer-input"], "keydown", (event) => this.#onComposerKey(event));
    on(ui["composer-input"], "input", () => this.#onInput());
    on(ui["composer-input"], "blur", () => this.#chat && this.#model.tellTyping(this.#chat, false));
    on(document, "visibilitychange", () => this.#markReadIfSeen());
    on(window, "resize", () => this.#keepAtEnd());
    on(window, "popstate", ({ state }) => this.#show(this.#model.chats.get(state?.chat) ?? null));
    this.#show(null);
  }

  /** Leaves the screen to a successor. */
  destroy() {
    this.#abort.abort();
    this.#show(null);
    this.#ui["chat-list"].replaceChildren();
    this.#ui["composer-input"].value = "";
    document.title = "imserver demo";
  }

  /** Opens a chat; on a phone it becomes a page of its own that the back button leaves. */
  open(chat) {
    if (this.#narrow.matches && !this.#chat) history.pushState({ chat: chat.id, isPushed: true }, "");
    else history.replaceState({ ...history.state, chat: chat.id }, "");
    this.#show(chat);
    if (this.#narrow.matches) this.#ui["chat-title"].focus();
    else this.#ui["composer-input"].focus();
  }

  /** After a reload, the chat that was open. */
  reopen() {
    if (this.#chat || this.#abort.signal.aborted) return;
    const chat = this.#model.chats.get(history.state?.chat);
    if (chat) this.#show(chat);
  }

  #goBack() {
    const left = this.#chat;
    if (history.state?.isPushed) {
      history.back();
    } else {
      history.replaceState(null, "");
      this.#show(null);
    }
    const isLeft = (item) => item.dataset.key === left?.id;
    [...this.#ui["chat-list"].children].find(isLeft)?.querySelector("button").focus();
  }

  #show(chat) {
    const ui = this.#ui;
    if (this.#chat === chat && chat) return;
    if (this.#chat) {
      this.#model.tellTyping(this.#chat, false);
      this.#chat.draft = ui["composer-input"].value;
    }
    this.#chat = chat;
    this.#isAtEnd = true;
    this.#unseen = 0;
    ui["message-list"].replaceChildren();
    ui.app.dataset.open = String(Boolean(chat));
    ui["chat-pane"].hidden = !chat;
    ui["chat-empty"].hidden = Boolean(chat);
    ui["composer-input"].value = chat?.draft ?? "";
    this.#growComposer();
    this.#render();
    if (chat) this.#model.open(chat);
  }

  // -- rendering

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // A microtask, so that one frame of the socket is one rendering, and no state of a message is skipped.
    queueMicrotask(() => {
      this.#isScheduled = false;
      if (!this.#abort.signal.aborted) this.#render();
    });
  }

  #render() {
    this.#renderList();
    if (this.#chat) this.#renderChat(this.#chat);
    this.#markReadIfSeen();
  }

  #renderList() {
    const model = this.#model;
    const chats = model.list;
    this.#ui["chat-list-empty"].hidden = chats.length > 0;
    reconcile(
      this.#ui["chat-list"], chats.map((chat) => chat.id),
      (id) => this.#createListItem(model.chats.get(id)),
      (item, id) => this.#updateListItem(item, model.chats.get(id)),
    );
    const unread = chats.reduce((sum, chat) => sum + chat.unread, 0);
    document.title = `${unread ? `(${unread}) ` : ""}${this.#me.nickname || this.#me.userID} · imserver demo`;
  }

  #createListItem(chat) {
    return h("li", {}, h(
      "button", { type: "button", class: "chat-item", onclick: () => this.open(chat) },
      h("span", { class: "avatar-box" }, avatar("", ""), h("span", { class: "presence", hidden: true })),
      h("span", { class: "chat-item-title" }), h("time", { class: "chat-item-time" }),
      h("span", { class: "chat-item-preview" }, h("span", { class: "mark" }), h("span", { class: "preview-text" })),
      h("span", { class: "badge", hidden: true },
        h("span", { class: "badge-count" }), h("span", { class: "sr-only" }, " unread")),
    ));
  }

  #updateListItem(item, chat) {
    const model = this.#model;
    const part = (name) => item.querySelector(`.${name}`);
    const title = model.titleOf(chat);
    const last = chat.lastMessage;
    item.dataset.chat = chat.id;
    item.dataset.peer = chat.peerID;
    if (chat === this.#chat) item.firstElementChild.setAttribute("aria-current", "true");
    else item.firstElementChild.removeAttribute("aria-current");
    setAvatar(part("avatar"), chat.peerID, title);
    part("presence").hidden = !model.isPeerOnline(chat);
    setText(part("chat-item-title"), title);
    setText(part("chat-item-time"), listTime(last?.time || chat.activeTime));
    setText(part("preview-text"), chat.isTyping ? "typing…" : previewOf(chat, last));
    part("chat-item-preview").classList.toggle("is-typing", chat.isTyping);
    setMark(part("mark"), last && !chat.isTyping ? markOf(chat, last) : "");
    part("badge").hidden = chat.unread === 0;
    setText(part("badge-count"), chat.unread > 99 ? "99+" : String(chat.unread));
  }

  #renderChat(chat) {
    const ui = this.#ui;
    const title = this.#model.titleOf(chat);
    setAvatar(ui["chat-avatar"], chat.peerID, title);
    setText(ui["chat-title"], title);
    const [state, words] = this.#statusOf(chat);
    setText(ui["chat-status"], words);
    ui["chat-status"].dataset.state = state;
    ui["peers-typing"].hidden = !chat.isTyping;
    setText(ui["history-status"], historyText(chat));
    ui.messages.setAttribute("aria-busy", String(chat.isLoading));

    const rows = rowsOf(chat);
    const list = ui["message-list"];
    const firstBefore = list.querySelector("[data-row=message]");
    const topBefore = firstBefore?.offsetTop ?? 0;
    reconcile(
      list, [...rows.keys()],
      (key) => createRow(rows.get(key), () => this.#model.retry(chat, rows.get(key).message)),
      (element, key) => updateRow(element, rows.get(key), chat),
    );
    if (this.#isAtEnd) {
      this.#scrollToEnd();
    } else if (firstBefore?.isConnected && firstBefore.offsetTop !== topBefore) {
      // Older messages were put above: what is being read must not move.
      ui.messages.scrollTop += firstBefore.offsetTop - topBefore;
    }
    this.#loadOlderIfNear();
    this.#renderJump();
  }

  /** The line under the name: [state, words]. On a phone it is all that tells of a lost connection. */
  #statusOf(chat) {
    if (!this.#model.isConnected) return ["waiting", "waiting for the connection…"];
    if (chat.isTyping) return ["typing", "typing…"];
    if (this.#model.isPeerOnline(chat)) return ["online", "online"];
    return ["", this.#model.titleOf(chat) === chat.peerID ? "" : chat.peerID];
  }

  #renderJump() {
    const ui = this.#ui;
    ui.jump.hidden = this.#isAtEnd;
    ui["jump-count"].hidden = this.#unseen === 0;
    setText(ui["jump-count"], String(this.#unseen));
  }

  // -- scrolling and reading

  #scrollToEnd() {
    const { messages } = this.#ui;
    this.#isAtEnd = true;
    this.#unseen = 0;
    messages.scrollTop = messages.scrollHeight;
    this.#renderJump();
  }

  #keepAtEnd() {
    if (this.#chat && this.#isAtEnd) this.#scrollToEnd();
  }

  #onScroll() {
    if (!this.#chat) return;
    const { messages } = this.#ui;
    this.#isAtEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < NEAR_END_PX;
    if (this.#isAtEnd) this.#unseen = 0;
    this.#renderJump();
    this.#loadOlderIfNear();
    this.#markReadIfSeen();
  }

  #loadOlderIfNear() {
    const { messages } = this.#ui;
    if (this.#chat?.hasOpened && messages.scrollTop < NEAR_START_PX) this.#model.loadOlder(this.#chat);
  }

  #markReadIfSeen() {
    if (this.#chat && this.#isAtEnd && document.visibilityState === "visible") this.#model.markRead(this.#chat);
  }

  #onIncoming({ chat, message }) {
    if (message.kind === "hidden") return;
    setText(this.#ui.announcer, `${this.#model.nameOf(message.senderID)}: ${message.text}`);
    if (chat === this.#chat && !this.#isAtEnd) this.#unseen += 1;
  }

  // -- keyboard and composer

  #moveInList(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.#ui["chat-list"].querySelectorAll("button")];
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
  }

  #onComposerKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#ui.composer.requestSubmit();
    } else if (event.key === "Escape") {
      this.#goBack();
    }
  }

  #onInput() {
    this.#growComposer();
    if (this.#chat) this.#model.tellTyping(this.#chat, this.#ui["composer-input"].value.trim() !== "");
  }

  #onSubmit(event) {
    event.preventDefault();
    const input = this.#ui["composer-input"];
    const text = input.value.trim();
    if (!text || !this.#chat) return;
    input.value = "";
    this.#growComposer();
    this.#isAtEnd = true;
    this.#model.send(this.#chat, text);
    input.focus();
  }

  #growComposer() {
    const input = this.#ui["composer-input"];
    input.style.height = "auto";
    if (input.scrollHeight) input.style.height = `${input.scrollHeight}px`;
    this.#keepAtEnd();
  }
}

function previewOf(chat, message) {
  if (!message) return "";
  const text = message.text.replace(/\s+/g, " ");
  if (message.kind === "system") return text;
  if (message.isOwn) return `You: ${text}`;
  return chat.isGroup ? `${message.senderName || message.senderID}: ${text}` : text;
}

function historyText(chat) {
  if (chat.isLoading) return "Loading older messages…";
  if (chat.canLoadOlder) return "";
  return chat.messages.length ? "This is where the chat begins" : "No messages yet. Say hello!";
}

/** What stands in the chat, top to bottom: key → {kind, message, …}. */
function rowsOf(chat) {
  const rows = new Map();
  let before = null;
  const { messages } = chat;
  messages.forEach((message, index) => {
    const isNewDay = !before || dayOf(before.time) !== dayOf(message.time);
    if (isNewDay) rows.set(`day-${dayOf(message.time)}-${message.key}`, { kind: "day", time: message.time });
    const isFirst = isNewDay || !isSameBlock(before, message);
    const after = messages[index + 1];
    const isLast = !after || !isSameBlock(message, after) || dayOf(after.time) !== dayOf(message.time);
    rows.set(message.key, { kind: "message", message, isFirst, isLast, hasName: chat.isGroup && !message.isOwn && isFirst });
    before = message;
  });
  return rows;
}

function isSameBlock(one, other) {
  return one.senderID === other.senderID && one.kind !== "system" && other.kind !== "system"
    && other.time - one.time < BLOCK_MS;
}

function createRow(row, onRetry) {
  if (row.kind === "day") return h("li", { class: "day", "data-row": "day" }, h("span", {}, dayTitle(row.time)));
  return h(
    "li", { class: "message", "data-row": "message" },
    h("div", { class: "bubble" },
      h("span", { class: "sr-only sender" }), h("span", { class: "bubble-text" }),
      h("span", { class: "bubble-meta" }, h("time", {}), h("span", { class: "mark" }))),
    h("div", { class: "failure", hidden: true }, h("span", { class: "failure-text" }),
      h("button", { type: "button", class: "retry", onclick: onRetry }, icon("retry"), "Retry")),
  );
}

function updateRow(element, row, chat) {
  if (row.kind === "day") return;
  const { message } = row;
  const part = (name) => element.querySelector(`.${name}`);
  const mark = markOf(chat, message);
  element.dataset.clientMsgId = message.clientMsgID;
  element.dataset.seq = String(message.seq || "");
  element.dataset.mark = mark;
  element.dataset.kind = message.kind;
  element.classList.toggle("is-own", message.isOwn);
  element.classList.toggle("is-first", row.isFirst);
  element.classList.toggle("is-last", row.isLast);
  const sender = part("sender");
  sender.classList.toggle("sr-only", !row.hasName);
  setText(sender, message.isOwn ? "You: " : `${message.senderName || message.senderID}${row.hasName ? "" : ": "}`);
  setText(part("bubble-text"), message.text);
  const time = element.querySelector("time");
  setText(time, clockTime(message.time));
  if (message.time) time.setAttribute("datetime", new Date(message.time).toISOString());
  setMark(part("mark"), mark);
  part("failure").hidden = mark !== "failed";
  setText(part("failure-text"), mark === "failed" ? `Not sent: ${message.error}` : "");
}

function setMark(element, mark) {
  if ((element.dataset.mark ?? "") === mark) return;
  element.dataset.mark = mark;
  const known = MARKS[mark];
  element.replaceChildren(...(known ? [icon(known.icon), h("span", { class: "sr-only" }, known.label)] : []));
  if (known) element.title = known.label;
  else element.removeAttribute("title");
}
