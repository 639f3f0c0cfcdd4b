// Numbers, ids and message contents of OpenIM's wire, as the gateway's JSON codec (sdkType=json) spells them.

export const PLATFORM_WEB = 5;

export const Req = Object.freeze({
  NEWEST_SEQS: 1001,
  PULL_RANGE: 1002,
  SEND_MSG: 1003,
  READ_AND_MAX_SEQS: 1006,
  LAST_MESSAGE: 1007,
  PUSH: 2001,
  KICK: 2002,
  ONLINE_STATUS: 2005,
});

export const ContentType = Object.freeze({
  TEXT: 101,
  TYPING: 113,
  REVOKE: 2101,
  DELETE_MSGS: 2102,
  CLEAR_CONVERSATION: 1703,
  READ_RECEIPT: 2200,
});

export const SessionType = Object.freeze({ SINGLE: 1, GROUP: 3 });

const MSG_FROM_USER = 100;
const STATUS_SENDING = 1;
const STATUS_DELETED = 4;
const NOTIFICATION_BEGIN = 1000;

const KIND_OF_CONTENT = {
  102: "[picture]", 103: "[voice message]", 104: "[video]", 105: "[file]", 107: "[forwarded messages]",
  108: "[contact card]", 109: "[location]", 110: "[custom message]", 115: "[sticker]",
};

const KIND_OF_NOTIFICATION = {
  1201: "You are now friends", 1501: "Group created", 1504: "A member left the group",
  1507: "The group has a new owner", 1508: "A member was removed", 1509: "New members were invited",
  1510: "A member joined", 1511: "Group dismissed", 1519: "The group notice changed", 1520: "The group has a new name",
};

// What typing and other online-only messages carry: without these the server would store them.
const ONLINE_ONLY = Object.freeze(Object.fromEntries([
  "history", "persistent", "senderSync", "conversationUpdate", "senderConversationUpdate", "unreadCount", "offlinePush",
].map((key) => [key, false])));

/** 32 hex characters, as the known clients make them. crypto.randomUUID would need HTTPS. */
export function newID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function encodeContent(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** The JSON inside `content`, or null when it is none. */
export function decodeContent(content) {
  try {
    const bytes = Uint8Array.from(atob(content || ""), (character) => character.charCodeAt(0));
    const value = JSON.parse(new TextDecoder().decode(bytes));
    return value !== null && typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** The tips of a notification: JSON in the `detail` string of the JSON content. */
export function decodeTips(content) {
  try {
    return JSON.parse(decodeContent(content).detail) ?? {};
  } catch {
    return {};
  }
}

export function singleChatID(one, other) {
  return `si_${[one, other].sort().join("_")}`;
}

/**
 * The peer in a single chat of which no message is left to ask. Ids may contain `_`, so the id cannot be split;
 * but our own part is known, and what remains must give the same id again.
 */
export function peerFromChatID(chatID, userID) {
  const pair = chatID.slice("si_".length);
  const candidates = [];
  if (pair.startsWith(`${userID}_`)) candidates.push(pair.slice(userID.length + 1));
  if (pair.endsWith(`_${userID}`)) candidates.push(pair.slice(0, -userID.length - 1));
  return candidates.find((candidate) => candidate && singleChatID(userID, candidate) === chatID) ?? "";
}

export function isChatID(id) {
  return id.startsWith("si_") || id.startsWith("sg_");
}

/** Where the read receipts and revokes of a chat are kept. */
export function notificationTwin(chatID) {
  return chatID.replace(/^[^_]*/, "n");
}

export function isNotificationID(id) {
  return id.startsWith("n_");
}

/** MsgData of a new text message; sending it again with the same clientMsgID does not store it twice. */
export function textMsg(me, target, text) {
  return { ...msgTo(me, target), contentType: ContentType.TEXT, content: encodeContent({ content: text }) };
}

export function typingMsg(me, target, isTyping) {
  return {
    ...msgTo(me, target),
    contentType: ContentType.TYPING,
    content: encodeContent({ msgTips: isTyping ? "yes" : "no" }),
    options: ONLINE_ONLY,
  };
}

function msgTo(me, { peerID, isGroup }) {
  return {
    sendID: me.userID,
    recvID: isGroup ? "" : peerID,
    groupID: isGroup ? peerID : "",
    clientMsgID: newID(),
    senderPlatformID: PLATFORM_WEB,
    senderNickname: me.nickname,
    sessionType: isGroup ? SessionType.GROUP : SessionType.SINGLE,
    msgFrom: MSG_FROM_USER,
    createTime: String(Date.now()),
    status: STATUS_SENDING,
    options: {},
  };
}

/**
 * How a MsgData is shown: `text` (a bubble), `note` (a bubble with a word for what it holds), `system` (a line
 * between bubbles) or `hidden` (deleted, or the placeholder that keeps the seq line closed).
 */
export function describe(data, userID) {
  const contentType = data.contentType ?? 0;
  if ((data.status ?? 0) >= STATUS_DELETED || contentType === 0) return { kind: "hidden", text: "" };
  if (contentType === ContentType.REVOKE) {
    const { revokerID, revokerNickname } = decodeTips(data.content);
    return { kind: "system", text: revokedText(revokerID, revokerNickname, userID) };
  }
  if (contentType >= NOTIFICATION_BEGIN) {
    return { kind: "system", text: KIND_OF_NOTIFICATION[contentType] ?? "[notification]" };
  }
  if (contentType in KIND_OF_CONTENT) return { kind: "note", text: KIND_OF_CONTENT[contentType] };
  const content = decodeContent(data.content);
  const text = content?.content ?? content?.text;
  return typeof text === "string" ? { kind: "text", text } : { kind: "note", text: "[message of another kind]" };
}

export function revokedText(revokerID, revokerName, userID) {
  if (revokerID === userID) return "You took back a message";
  return `${revokerName || revokerID || "Somebody"} took back a message`;
}
