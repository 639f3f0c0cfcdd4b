// The WebSocket to the gateway: handshake, requests and answers, keep-alive, reconnect with back-off.

import { PLATFORM_WEB, Req, newID } from "./protocol.js";

const BACKOFF_SECONDS = [1, 2, 4, 8, 16];
const HANDSHAKE_MS = 10_000;
const ANSWER_MS = 10_000;
const PING_MS = 10_000;
const PONG_LIMIT_MS = 20_000;
const WATCH_MS = 2_000;
/** Close codes of the gateway (gateway/close.py): 4100 to 4199 say not to come back. */
const CLOSE_KICKED = 4104;
const CLOSE_FOR_GOOD = [4100, 4199];

/** The connection went away before the answer came; the request may or may not have been carried out. */
export class Disconnected extends Error {}

/** The connection lives, but the answer did not come in time. */
export class NoAnswer extends Error {}

/** The server answered with an error code. */
export class Refused extends Error {
  constructor(errCode, errMsg) {
    super(errMsg || `error ${errCode}`);
    this.errCode = errCode;
  }
}

/**
 * Events:
 *   state   {state: "connecting" | "online" | "waiting" | "closed", seconds}; seconds until the next attempt
 *   push    {reqIdentifier, data}
 *   refused {errCode, errMsg}; the token (or, with errCode 0, this page) is no good, there will be no further attempt
 *   kicked  the server ended this session, there will be no further attempt
 */
export class Gateway extends EventTarget {
  #url;
  #login = null;
  #socket = null;
  #isOnline = false;
  #requests = new Map();
  #failures = 0;
  #retryAt = 0;
  #timers = [];
  #pingSentAt = 0;
  #pongAt = 0;

  constructor(url) {
    super();
    this.#url = url;
  }

  get isOnline() {
    return this.#isOnline;
  }

  /** Connects, and stays connected until close(), a kick or a refused token. */
  open(userID, token) {
    this.#login = { userID, token };
    this.#failures = 0;
    this.#connect();
  }

  close() {
    this.#login = null;
    this.#drop();
    this.#tell("closed");
  }

  /** Skips the rest of the back-off. */
  retryNow() {
    if (this.#login && !this.#socket) this.#connect();
  }

  /** Asks whether the other side is still there: after a laptop wakes up the socket may be dead without knowing. */
  probe() {
    if (this.#isOnline) this.#ping();
    else this.retryNow();
  }

  /** Rejects with Refused, NoAnswer or Disconnected. */
  request(reqIdentifier, data) {
    if (!this.#isOnline) return Promise.reject(new Disconnected("not connected"));
    const msgIncr = newID();
    const frame = { reqIdentifier, sendID: this.#login.userID, operationID: newID(), msgIncr, data };
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#requests.delete(msgIncr);
        reject(new NoAnswer("the server did not answer in time"));
      }, ANSWER_MS);
      this.#requests.set(msgIncr, { resolve, reject, timer });
      this.#socket.send(JSON.stringify(frame));
    });
  }

  #connect() {
    this.#drop();
    this.#tell("connecting");
    const url = new URL(this.#url);
    url.search = new URLSearchParams({
      sendID: this.#login.userID,
      token: this.#login.token,
      platformID: String(PLATFORM_WEB),
      operationID: newID(),
      isBackground: "false",
      isMsgResp: "true",
      sdkType: "json",
    });
    const socket = new WebSocket(url);
    this.#socket = socket;
    // Handlers look at the socket they belong to: one that was given up must not disturb its successor.
    socket.onmessage = ({ data }) => socket === this.#socket && this.#onFrame(data);
    socket.onclose = (event) => socket === this.#socket && this.#onClose(event);
    this.#timers.push(setTimeout(() => this.#isOnline || this.#reconnectLater(), HANDSHAKE_MS));
  }

  #onFrame(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    this.#pongAt = Date.now();
    if (frame.type === "pong") return;
    if (!this.#isOnline) this.#onHandshake(frame);
    else if (frame.reqIdentifier === Req.KICK) this.#end("kicked", {});
    else if (frame.msgIncr) this.#onAnswer(frame);
    else this.#emit("push", { reqIdentifier: frame.reqIdentifier, data: frame.data ?? {} });
  }

  #onHandshake({ errCode, errMsg }) {
    if (errCode >= 1501 && errCode <= 1507) {
      this.#end("refused", { errCode, errMsg });
    } else if (errCode) {
      this.#reconnectLater();
    } else {
      this.#isOnline = true;
      this.#failures = 0;
      this.#pingSentAt = this.#pongAt = Date.now();
      this.#timers.push(setInterval(() => this.#watch(), WATCH_MS));
      this.#tell("online");
    }
  }

  #onClose({ code, reason }) {
    const [first, last] = CLOSE_FOR_GOOD;
    if (code === CLOSE_KICKED) this.#end("kicked", {});
    else if (code >= first && code <= last) this.#end("refused", { errCode: 0, errMsg: reason });
    else this.#reconnectLater();
  }

  #onAnswer({ msgIncr, errCode, errMsg, data }) {
    const request = this.#requests.get(msgIncr);
    if (!request) return;
    this.#requests.delete(msgIncr);
    clearTimeout(request.timer);
    if (errCode) request.reject(new Refused(errCode, errMsg));
    else request.resolve(data ?? {});
  }

  #watch() {
    const now = Date.now();
    const isOutstanding = this.#pongAt < this.#pingSentAt;
    if (isOutstanding && now - this.#pingSentAt > PONG_LIMIT_MS) this.#reconnectLater();
    else if (!isOutstanding && now - this.#pingSentAt >= PING_MS) this.#ping();
  }

  #ping() {
    if (this.#pongAt < this.#pingSentAt) return;
    this.#pingSentAt = Date.now();
    this.#socket.send(JSON.stringify({ type: "ping" }));
  }

  #reconnectLater() {
    this.#drop();
    const seconds = BACKOFF_SECONDS[Math.min(this.#failures, BACKOFF_SECONDS.length - 1)];
    this.#failures += 1;
    this.#retryAt = Date.now() + seconds * 1000;
    this.#timers.push(setTimeout(() => this.#connect(), seconds * 1000));
    const countDown = () => this.#tell("waiting", Math.max(1, Math.round((this.#retryAt - Date.now()) / 1000)));
    this.#timers.push(setInterval(countDown, 1000));
    countDown();
  }

  #end(type, detail) {
    this.close();
    this.#emit(type, detail);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#isOnline = false;
    for (const timer of this.#timers.splice(0)) clearTimeout(timer); // clears intervals too
    socket?.close();
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { reject, timer } of requests) {
      clearTimeout(timer);
      reject(new Disconnected("the connection was lost"));
    }
  }

  #tell(state, seconds = 0) {
    this.#emit("state", { state, seconds });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
