// The web process: the demo's own routes, and OpenIM's REST.

import { newID } from "./protocol.js";

/** The server answered with an error code, or not with what was asked for. */
export class RestError extends Error {
  constructor(errCode, message) {
    super(message);
    this.errCode = errCode;
  }
}

async function fetchJSON(path, options = {}) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  let answer = null;
  try {
    answer = await response.json();
  } catch {
    // Told below: a proxy's error page is no JSON.
  }
  if (answer?.errCode) throw new RestError(answer.errCode, answer.errDlt || answer.errMsg || `error ${answer.errCode}`);
  if (!response.ok || answer === null) throw new RestError(0, `the server answered ${response.status}`);
  return answer;
}

function post(path, body, headers = {}) {
  return fetchJSON(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

/** {gatewayURL, hasPresence}: where the gateway listens, as seen from this page, and whether it knows request 2005. */
export async function loadConfig() {
  const { gateway_url: url, gateway_port: port, presence } = await fetchJSON("/demo/config");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return { gatewayURL: url || `${scheme}://${location.hostname}:${port}/`, hasPresence: presence === true };
}

export async function listUsers() {
  return (await fetchJSON("/demo/users")).users ?? [];
}

export function logIn(userID, nickname) {
  return post("/demo/login", { userID, nickname });
}

/** OpenIM routes; resolves to `data` of the envelope. */
export class Rest {
  constructor(token) {
    this.token = token;
  }

  async call(path, body) {
    return (await post(path, body, { operationID: newID(), token: this.token })).data ?? {};
  }

  async usersInfo(userIDs) {
    return (await this.call("/user/get_users_info", { userIDs })).usersInfo ?? [];
  }

  markRead(conversationID, userID, hasReadSeq, seqs) {
    return this.call("/msg/mark_conversation_as_read", { conversationID, userID, hasReadSeq, seqs });
  }
}
