// What this user knows: chats, messages, read state, and what still has to be sent.
//
// The server numbers the messages of a chat 1, 2, 3 …; of every chat this keeps one contiguous window [low, high] of
// seqs. A push that continues the window is appended, any other tells that something was missed, and the gap is pulled.
// Pushes are therefore only hints: after every (re)connect sync() asks for the newest seqs and fills in the rest.

import { Disconnected, NoAnswer } from "./gateway.js";
import {
  ContentType, Req, decodeContent, decodeTips, describe, isChatID, isNotificationID, notificationTwin, peerFromChatID,
  revokedText, singleChatID, textMsg, typingMsg,
} from "./protocol.js";

/** Messages in one page of history. */
const PAGE = 30;
/** A longer gap is not filled: the window starts again at the newest page, and scrolling up loads the rest. */
const LONGEST_GAP = 100;
/**
 * Notifications (read receipts, revokes) looked back at: after a reload, when the chat is opened (our own receipts are
 * among them, and may have pushed the peer's last one far back), and at most after a reconnect.
 */
const NOTIFICATIONS_AT_START = 20;
const NOTIFICATIONS_AT_OPENING = 120;
const NOTIFICATIONS_AT_MOST = 200;
/** Messages asked for in one pull; the server refuses more than 1000. */
const MSGS_PER_PULL = 500;
/** Typing is told at most so often, and shown so long (as OpenIM's own clients do). */
const TYPING_EVERY_MS = 10_000;
const TYPING_SHOWN_MS = 15_000;
const TRY_AGAIN_MS = 5_000;

class Message {
  constructor(data, userID) {
    this.clientMsgID = data.clientMsgID ?? "";
    this.senderID = data.sendID ?? "";
    this.senderName = data.senderNickname ?? "";
    this.isOwn = this.senderID === userID;
    this.acked = false;
    this.error = "";
    this.update(data, userID);
  }

  update(data, userID) {
    this.seq = Number(data.seq ?? 0);
    this.time = Number(data.sendTime || data.createTime || 0);
    this.isRead = data.isRead === true;
    Object.assign(this, describe(data, userID));
  }

  get key() {
    return this.clientMsgID || `seq-${this.seq}`;
  }
}

class Chat {
  constructor(id) {
    this.id = id;
    this.isGroup = id.startsWith("sg_");
    this.peerID = this.isGroup ? id.slice("sg_".length) : "";
    this.low = 1;
    this.high = 0;
    this.target = 0;
    this.readSeq = 0;
    this.receiptSeq = 0;
    this.peerReadSeq = 0;
    this.activeTime = 0;
    this.typingUntil = 0;
    this.hasOpened = false;
    this.hasOlderNotifications = false;
    this.isAtStart = false;
    this.isLoading = false;
    this.isCatchingUp = false;
    this.mayMarkAt = 0;
    this.mayLoadAt = 0;
    this.bySeq = new Map();
    this.byClientMsgID = new Map();
    this.early = new Map();
    this.waiting = [];
  }

  get unread() {
    return Math.max(0, this.high - this.readSeq);
  }

  get isTyping() {
    return this.typingUntil > Date.now();
  }

  get canLoadOlder() {
    return !this.isAtStart && this.low > 1;
  }

  /** What can be shown, in order: by seq, then those that have none yet. */
  get messages() {
    const shown = [];
    for (let seq = this.low; seq <= this.high; seq += 1) {
      const message = this.bySeq.get(seq);
      if (message && message.kind !== "hidden") shown.push(message);
    }
    return shown.concat(this.waiting);
  }

  get lastMessage() {
    if (this.waiting.length) return this.waiting.at(-1);
    for (let seq = this.high; seq >= this.low; seq -= 1) {
      const message = this.bySeq.get(seq);
      if (message && message.kind !== "hidden") return message;
    }
    return null;
  }

  forgetWindow(low) {
    for (const message of this.bySeq.values()) this.byClientMsgID.delete(message.clientMsgID);
    this.bySeq.clear();
    this.low = low;
    this.high = low - 1;
    this.isAtStart = false;
  }
}

/** How far an own message has got. */
export function markOf(chat, message) {
  if (!message.isOwn || message.kind === "system") return "";
  if (message.seq > 0) return !chat.isGroup && (message.isRead || message.seq <= chat.peerReadSeq) ? "read" : "delivered";
  if (message.error) return "failed";
  return message.acked ? "sent" : "sending";
}

/** Events: `change` (chats, messages or names differ), `incoming` {chat, message}. */
export class Chats extends EventTarget {
  chats = new Map();
  #me;
  #gateway;
  #rest;
  #outbox;
  #names = new Map();
  #isPeerOnline = new Map();
  #notificationSeqs = new Map();
  #typingToldAt = new Map();
  #hasPresence;
  #isSending = false;
  #isSyncing = false;
  #syncTimer = 0;

  /** `me` is {userID, nickname}; `storage` keeps unsent messages across a reload. */
  constructor({ me, gateway, rest, storage, hasPresence }) {
    super();
    this.#hasPresence = hasPresence;
    this.#me = me;
    this.#gateway = gateway;
    this.#rest = rest;
    this.#names.set(me.userID, me.nickname);
    this.#outbox = new Outbox(storage, me.userID);
    gateway.addEventListener("state", ({ detail }) => (detail.state === "online" ? this.sync() : this.#onConnectionLost()));
    gateway.addEventListener("push", ({ detail }) => this.#onPush(detail));
    for (const { chatID, peerID, request, error } of this.#outbox.items) {
      const chat = this.#chatOf(chatID, peerID);
      chat.hasOpened = true; // so that sync() looks at more than the newest message for what had arrived after all
      this.#show(chat, request).error = error;
    }
  }

  // -- looking

  /** Chats that have something to show, the latest first. */
  get list() {
    const time = (chat) => chat.lastMessage?.time || chat.activeTime;
    return [...this.chats.values()].filter((chat) => chat.target > 0 || chat.waiting.length)
      .sort((one, other) => time(other) - time(one));
  }

  titleOf(chat) {
    if (chat.isGroup) return `Group ${chat.peerID}`;
    return this.nameOf(chat.peerID);
  }

  nameOf(userID) {
    return this.#names.get(userID) || userID || "Unknown";
  }

  get isConnected() {
    return this.#gateway.isOnline;
  }

  isPeerOnline(chat) {
    return this.#isPeerOnline.get(chat.peerID) === true;
  }

  learnNames(users) {
    for (const { userID, nickname } of users) if (nickname) this.#names.set(userID, nickname);
    this.#changed();
  }

  // -- doing

  /** The chat with a user, which need not have any message yet. */
  startWith(userID) {
    const chat = this.#chatOf(singleChatID(this.#me.userID, userID), userID);
    this.#subscribe([userID]);
    return chat;
  }

  /** Makes sure that a page of history is there. */
  async open(chat) {
    chat.hasOpened = true;
    this.#pullOlderNotifications(chat).catch((error) => this.#expect(error));
    if (chat.high - chat.low + 1 < PAGE) await this.loadOlder(chat);
  }

  async loadOlder(chat) {
    if (chat.isLoading || !chat.canLoadOlder || !this.#gateway.isOnline || Date.now() < chat.mayLoadAt) return;
    chat.isLoading = true;
    this.#changed();
    const end = chat.low - 1;
    const begin = Math.max(1, end - PAGE + 1);
    try {
      const msgs = await this.#pullRange(chat.id, begin, end, PAGE);
      if (end !== chat.low - 1) return; // the window was started anew meanwhile
      const lowest = msgs.size ? Math.min(...msgs.keys()) : end + 1;
      if (lowest > begin) chat.isAtStart = true; // the server keeps nothing below
      for (let seq = end; seq >= lowest; seq -= 1) this.#place(chat, seq, msgs.get(seq));
      chat.low = lowest;
    } catch (error) {
      chat.mayLoadAt = Date.now() + TRY_AGAIN_MS;
      this.#expect(error);
    } finally {
      chat.isLoading = false;
      this.#changed();
    }
  }

  send(chat, text) {
    const request = textMsg(this.#me, chat, text);
    this.#typingToldAt.delete(chat.id);
    this.#outbox.add({ chatID: chat.id, peerID: chat.peerID, request, error: "" });
    this.#show(chat, request);
    this.#changed();
    this.#sendWaiting();
  }

  /** Sends a failed message again under its old clientMsgID: should the first try have arrived, it stays one message. */
  retry(chat, message) {
    message.error = "";
    this.#outbox.setError(message.clientMsgID, "");
    this.#changed();
    this.#sendWaiting();
  }

  /** Tells the peer, at most every ten seconds. */
  tellTyping(chat, isTyping) {
    if (chat.isGroup || !this.#gateway.isOnline) return;
    const toldAt = this.#typingToldAt.get(chat.id) ?? 0;
    if (isTyping ? Date.now() - toldAt < TYPING_EVERY_MS : !toldAt) return;
    if (isTyping) this.#typingToldAt.set(chat.id, Date.now());
    else this.#typingToldAt.delete(chat.id);
    this.#gateway.request(Req.SEND_MSG, typingMsg(this.#me, chat, isTyping)).catch((error) => this.#expect(error));
  }

  /**
   * Everything in the chat has been seen. The receipt names the received seqs: the peer's client ignores one that names
   * none. They are counted apart from readSeq, which the server also raises when we send.
   */
  async markRead(chat) {
    if (Date.now() < chat.mayMarkAt) return;
    const seqs = [];
    for (let seq = Math.max(chat.low, chat.receiptSeq + 1); seq <= chat.high; seq += 1) {
      const message = chat.bySeq.get(seq);
      if (message && !message.isOwn && message.kind !== "hidden") seqs.push(seq);
    }
    if (!seqs.length && chat.high <= chat.readSeq) return;
    const before = { readSeq: chat.readSeq, receiptSeq: chat.receiptSeq };
    chat.readSeq = chat.receiptSeq = chat.high;
    this.#changed();
    try {
      await this.#rest.markRead(chat.id, this.#me.userID, chat.high, seqs);
    } catch {
      Object.assign(chat, before, { mayMarkAt: Date.now() + TRY_AGAIN_MS });
      setTimeout(() => this.#changed(), TRY_AGAIN_MS);
      this.#changed();
    }
  }

  // -- catching up

  /** Asks what is new and pulls it, then sends what is waiting. Runs after every connect; harmless to repeat. */
  async sync() {
    clearTimeout(this.#syncTimer);
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    try {
      const userID = this.#me.userID;
      const [{ maxSeqs = {} }, { seqs = {} }] = await Promise.all([
        this.#gateway.request(Req.NEWEST_SEQS, { userID }),
        this.#gateway.request(Req.READ_AND_MAX_SEQS, { userID, conversationIDs: [] }),
      ]);
      this.#learnSeqs(seqs);
      await this.#pullPreviews();
      await this.#findPeers();
      await this.#pullNotifications(maxSeqs);
      await Promise.all([...this.chats.values()].map((chat) => this.#catchUp(chat)));
      for (const chat of this.chats.values()) if (chat.hasOpened) await this.#pullOlderNotifications(chat);
      this.#subscribe([...this.chats.values()].filter((chat) => !chat.isGroup).map((chat) => chat.peerID));
    } catch (error) {
      this.#expect(error);
      if (this.#gateway.isOnline) this.#syncTimer = setTimeout(() => this.sync(), TRY_AGAIN_MS);
    } finally {
      this.#isSyncing = false;
      this.#changed();
    }
    this.#sendWaiting();
    this.#findNames();
  }

  #learnSeqs(seqs) {
    for (const [id, { maxSeq = 0, hasReadSeq = 0, maxSeqTime = 0 }] of Object.entries(seqs)) {
      if (!isChatID(id) || Number(maxSeq) === 0) continue;
      const isNew = !this.chats.has(id);
      const chat = this.#chatOf(id);
      chat.target = Math.max(chat.target, Number(maxSeq));
      chat.readSeq = Math.max(chat.readSeq, Number(hasReadSeq));
      chat.activeTime = Math.max(chat.activeTime, Number(maxSeqTime));
      if (isNew) chat.receiptSeq = chat.readSeq;
    }
  }

  /** Chats that nobody has looked into need only their newest message. */
  async #pullPreviews() {
    const behind = [...this.chats.values()].filter((chat) => !chat.hasOpened && chat.high < chat.target);
    const ranges = behind.map((chat) => ({ conversationID: chat.id, begin: chat.target, end: chat.target, num: 1 }));
    const { msgs } = await this.#pull(ranges);
    behind.forEach((chat, index) => {
      const { end } = ranges[index];
      if (chat.hasOpened || chat.high >= end) return; // left to #catchUp; a push was faster
      chat.forgetWindow(end);
      this.#place(chat, end, msgs.get(chat.id)?.get(end));
      chat.high = end;
    });
    this.#changed();
  }

  async #findPeers() {
    const unknown = [...this.chats.values()].filter((chat) => !chat.peerID).map((chat) => chat.id);
    if (!unknown.length) return;
    const request = { userID: this.#me.userID, conversationIDs: unknown };
    const { msgs = {} } = await this.#gateway.request(Req.LAST_MESSAGE, request);
    for (const id of unknown) {
      const chat = this.chats.get(id);
      chat.peerID = this.#peerOf(msgs[id] ?? {}) || peerFromChatID(id, this.#me.userID);
    }
  }

  async #findNames() {
    const unknown = [...this.chats.values()].filter((chat) => !chat.isGroup && chat.peerID && !this.#names.has(chat.peerID));
    if (!unknown.length) return;
    try {
      this.learnNames(await this.#rest.usersInfo(unknown.map((chat) => chat.peerID)));
    } catch {
      // The id is shown instead of the name.
    }
  }

  /** Read receipts and revokes that came while we were away. Their conversation ids are in the tips. */
  async #pullNotifications(maxSeqs) {
    const ranges = [];
    for (const [id, value] of Object.entries(maxSeqs)) {
      const end = Number(value);
      if (!isNotificationID(id) || end === 0) continue;
      const known = this.#notificationSeqs.get(id);
      const count = known === undefined ? NOTIFICATIONS_AT_START : Math.min(NOTIFICATIONS_AT_MOST, end - known);
      if (count > 0) ranges.push({ conversationID: id, begin: Math.max(1, end - count + 1), end, num: count });
    }
    const { notificationMsgs } = await this.#pull(ranges);
    for (const msgs of notificationMsgs.values()) for (const data of msgs.values()) this.#onNotification(data);
    for (const { conversationID, end } of ranges) this.#sawNotification(conversationID, end);
  }

  async #pullOlderNotifications(chat) {
    const conversationID = notificationTwin(chat.id);
    const end = (this.#notificationSeqs.get(conversationID) ?? 0) - NOTIFICATIONS_AT_START;
    if (chat.hasOlderNotifications || end < 1) return;
    chat.hasOlderNotifications = true;
    const begin = Math.max(1, end - NOTIFICATIONS_AT_OPENING + 1);
    const { notificationMsgs } = await this.#pull([{ conversationID, begin, end, num: NOTIFICATIONS_AT_OPENING }]);
    for (const data of notificationMsgs.get(conversationID)?.values() ?? []) this.#onNotification(data);
    this.#changed();
  }

  #sawNotification(id, seq) {
    this.#notificationSeqs.set(id, Math.max(this.#notificationSeqs.get(id) ?? 0, seq));
  }

  /** Fills the window up to `target`. */
  async #catchUp(chat) {
    if (chat.isCatchingUp) return;
    chat.isCatchingUp = true;
    try {
      while (chat.high < chat.target) {
        const end = chat.target;
        const isFar = end - chat.high > LONGEST_GAP;
        const begin = isFar ? end - PAGE + 1 : chat.high + 1;
        const msgs = await this.#pullRange(chat.id, begin, end, end - begin + 1);
        if (isFar) chat.forgetWindow(begin);
        for (let seq = begin; seq <= end; seq += 1) {
          this.#place(chat, seq, msgs.get(seq) ?? chat.early.get(seq));
          chat.early.delete(seq);
          chat.high = seq;
        }
        this.#changed();
      }
    } finally {
      chat.isCatchingUp = false;
    }
  }

  async #pullRange(conversationID, begin, end, num) {
    const { msgs } = await this.#pull([{ conversationID, begin, end, num }]);
    return msgs.get(conversationID) ?? new Map();
  }

  /** Resolves to {msgs, notificationMsgs}: conversation id → seq → MsgData. */
  async #pull(ranges) {
    const found = { msgs: new Map(), notificationMsgs: new Map() };
    const waiting = [...ranges];
    while (waiting.length) {
      const seqRanges = [];
      let count = 0;
      do {
        const { conversationID, begin, end, num } = waiting.shift();
        seqRanges.push({ conversationID, begin: String(begin), end: String(end), num: String(num) });
        count += num;
      } while (waiting.length && count + waiting[0].num <= MSGS_PER_PULL);
      const answer = await this.#gateway.request(Req.PULL_RANGE, { userID: this.#me.userID, seqRanges, order: 0 });
      for (const kind of ["msgs", "notificationMsgs"]) {
        for (const [id, { Msgs = [] }] of Object.entries(answer[kind] ?? {})) {
          found[kind].set(id, new Map(Msgs.map((data) => [Number(data.seq ?? 0), data])));
        }
      }
    }
    return found;
  }

  // -- pushes

  #onPush({ reqIdentifier, data }) {
    if (reqIdentifier === Req.ONLINE_STATUS) this.#onOnlineStatus(data);
    if (reqIdentifier !== Req.PUSH) return;
    for (const [id, { Msgs = [] }] of Object.entries(data.msgs ?? {})) {
      if (isChatID(id)) for (const msg of Msgs) this.#onPushedMsg(id, msg);
    }
    for (const [id, { Msgs = [] }] of Object.entries(data.notificationMsgs ?? {})) {
      for (const msg of Msgs) this.#onPushedNotification(id, msg);
    }
    this.#changed();
  }

  #onPushedMsg(id, data) {
    const seq = Number(data.seq ?? 0);
    if (seq === 0) {
      if (data.contentType === ContentType.TYPING) this.#onTyping(id, data);
      return;
    }
    const isNew = !this.chats.has(id);
    const chat = this.#chatOf(id);
    if (seq <= chat.high) return;
    chat.target = Math.max(chat.target, seq);
    if (seq === chat.high + 1 && !chat.isCatchingUp) {
      this.#place(chat, seq, data);
      chat.high = seq;
    } else if (chat.hasOpened) {
      chat.early.set(seq, data);
      this.#catchUp(chat).catch((error) => this.#expect(error));
    } else {
      chat.forgetWindow(seq);
      this.#place(chat, seq, data);
      chat.high = seq;
    }
    if (isNew && seq > 1) this.sync(); // how much of it was read?
    if (data.sendID !== this.#me.userID) this.#onIncoming(chat, data);
  }

  #onIncoming(chat, data) {
    chat.typingUntil = 0;
    this.#findNames();
    if (!chat.isGroup && !this.#isPeerOnline.has(chat.peerID)) this.#subscribe([chat.peerID]);
    const message = chat.byClientMsgID.get(data.clientMsgID);
    if (message) this.dispatchEvent(new CustomEvent("incoming", { detail: { chat, message } }));
  }

  #onTyping(id, data) {
    const chat = this.chats.get(id);
    if (!chat || data.sendID === this.#me.userID) return;
    const isTyping = decodeContent(data.content)?.msgTips === "yes";
    chat.typingUntil = isTyping ? Date.now() + TYPING_SHOWN_MS : 0;
    if (isTyping) setTimeout(() => this.#changed(), TYPING_SHOWN_MS + 50);
  }

  #onPushedNotification(id, data) {
    this.#onNotification(data);
    const seq = Number(data.seq ?? 0);
    if (seq === 0) return;
    const known = this.#notificationSeqs.get(id);
    if (known !== undefined && seq > known + 1) {
      this.#pullNotifications({ [id]: seq }).then(() => this.#changed(), (error) => this.#expect(error));
    } else {
      this.#sawNotification(id, seq);
    }
  }

  /** May see the same notification twice. */
  #onNotification({ contentType, content }) {
    const tips = decodeTips(content);
    const chat = this.chats.get(tips.conversationID);
    if (contentType === ContentType.READ_RECEIPT && chat) {
      const seq = Number(tips.hasReadSeq ?? 0);
      if (tips.markAsReadUserID !== this.#me.userID) {
        chat.peerReadSeq = Math.max(chat.peerReadSeq, seq);
      } else {
        chat.readSeq = Math.max(chat.readSeq, seq);
        chat.receiptSeq = Math.max(chat.receiptSeq, seq);
      }
    } else if (contentType === ContentType.REVOKE && chat) {
      const message = chat.bySeq.get(Number(tips.seq ?? 0));
      const revoker = tips.revokerUserID;
      const text = revokedText(revoker, this.nameOf(revoker), this.#me.userID);
      if (message) Object.assign(message, { kind: "system", text });
    } else if (contentType === ContentType.DELETE_MSGS && chat) {
      for (const seq of tips.seqs ?? []) Object.assign(chat.bySeq.get(Number(seq)) ?? {}, { kind: "hidden" });
    } else if (contentType === ContentType.CLEAR_CONVERSATION) {
      for (const id of tips.conversationIDs ?? []) this.#clear(this.chats.get(id));
    }
  }

  #clear(chat) {
    if (!chat) return;
    const { target } = chat;
    chat.forgetWindow(target + 1);
    chat.isAtStart = true;
    chat.readSeq = Math.max(chat.readSeq, target);
  }

  // -- presence

  /** Who is there and who types is not known any more. */
  #onConnectionLost() {
    this.#isPeerOnline.clear();
    this.#typingToldAt.clear();
    for (const chat of this.chats.values()) chat.typingUntil = 0;
    this.#changed();
  }

  #subscribe(userIDs) {
    // A gateway that does not know this request would close the connection.
    const subscribeUserID = this.#hasPresence ? userIDs.filter(Boolean) : [];
    if (!subscribeUserID.length || !this.#gateway.isOnline) return;
    this.#gateway.request(Req.ONLINE_STATUS, { subscribeUserID, unsubscribeUserID: [] })
      .then((data) => this.#onOnlineStatus(data), (error) => this.#expect(error));
  }

  #onOnlineStatus({ subscribers = [] }) {
    for (const { userID, onlinePlatformIDs = [] } of subscribers) {
      this.#isPeerOnline.set(userID, onlinePlatformIDs.length > 0);
    }
    this.#changed();
  }

  // -- messages

  #chatOf(id, peerID = "") {
    let chat = this.chats.get(id);
    if (!chat) {
      chat = new Chat(id);
      this.chats.set(id, chat);
    }
    chat.peerID ||= peerID;
    return chat;
  }

  #peerOf({ sendID = "", recvID = "" }) {
    return sendID === this.#me.userID ? recvID : sendID;
  }

  /**
   * Puts a stored message where its seq says; nothing there keeps the line closed. A clientMsgID that was stored twice
   * is shown once.
   */
  #place(chat, seq, data) {
    const message = new Message({ ...data, seq }, this.#me.userID);
    const known = message.clientMsgID && chat.byClientMsgID.get(message.clientMsgID);
    if (known && known.seq > 0) {
      message.kind = "hidden";
      message.clientMsgID = "";
    } else if (known) {
      chat.waiting = chat.waiting.filter((other) => other !== known);
      this.#outbox.remove(known.clientMsgID);
      known.update({ ...data, seq }, this.#me.userID);
      known.error = "";
    }
    const shown = known && message.kind !== "hidden" ? known : message;
    chat.bySeq.set(seq, shown);
    if (shown.clientMsgID) chat.byClientMsgID.set(shown.clientMsgID, shown);
    if (!data) return;
    if (!chat.isGroup) {
      chat.peerID ||= this.#peerOf(data);
      if (!message.isOwn && message.senderName && !this.#names.has(message.senderID)) {
        this.#names.set(message.senderID, message.senderName);
      }
    }
    chat.activeTime = Math.max(chat.activeTime, shown.time);
    // As the server does: who sends has read. And a message known to be read was so together with all before it.
    if (shown.isOwn) chat.readSeq = Math.max(chat.readSeq, seq);
    if (shown.isOwn && shown.isRead) chat.peerReadSeq = Math.max(chat.peerReadSeq, seq);
  }

  /** Shows a message that has no seq yet. */
  #show(chat, request) {
    const message = new Message(request, this.#me.userID);
    chat.waiting.push(message);
    chat.byClientMsgID.set(message.clientMsgID, message);
    return message;
  }

  /** One at a time, so that messages written offline keep their order. What a lost connection interrupts stays waiting. */
  async #sendWaiting() {
    if (this.#isSending) return;
    this.#isSending = true;
    try {
      let item;
      while (this.#gateway.isOnline && !this.#isSyncing && (item = this.#outbox.next())) await this.#sendOne(item);
    } finally {
      this.#isSending = false;
    }
  }

  async #sendOne({ chatID, request }) {
    const { clientMsgID } = request;
    const message = this.chats.get(chatID).byClientMsgID.get(clientMsgID);
    try {
      const { sendTime } = await this.#gateway.request(Req.SEND_MSG, request);
      this.#outbox.remove(clientMsgID);
      message.acked = true;
      if (!message.seq && sendTime) message.time = Number(sendTime);
    } catch (error) {
      if (error instanceof Disconnected || message.seq) return;
      message.error = error instanceof NoAnswer ? "No answer from the server" : error.message;
      this.#outbox.setError(clientMsgID, message.error);
    }
    this.#changed();
  }

  /** Losing the connection is part of life, sync() makes up for it; anything else goes to the console. */
  #expect(error) {
    if (!(error instanceof Disconnected)) console.warn(error);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Messages whose answer has not come. Kept in the tab's storage: a reload must not lose them. */
class Outbox {
  #storage;
  #key;

  constructor(storage, userID) {
    this.#storage = storage;
    this.#key = `demo.outbox.${userID}`;
    try {
      this.items = JSON.parse(storage.getItem(this.#key)) ?? [];
    } catch {
      this.items = [];
    }
  }

  next() {
    return this.items.find((item) => !item.error);
  }

  add(item) {
    this.items.push(item);
    this.#save();
  }

  remove(clientMsgID) {
    this.items = this.items.filter((item) => item.request.clientMsgID !== clientMsgID);
    this.#save();
  }

  setError(clientMsgID, error) {
    const item = this.items.find(({ request }) => request.clientMsgID === clientMsgID);
    if (item) item.error = error;
    this.#save();
  }

  #save() {
    this.#storage.setItem(this.#key, JSON.stringify(this.items));
  }
}
