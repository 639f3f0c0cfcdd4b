// What the tests need of an SDK, in `window`: its events in order, its calls by name.

/** Never rejects: `{data}` of a success, `{errCode, errMsg}` of a failure. */
export const settle = async (answer) => {
  try {
    return { errCode: 0, data: await answer };
  } catch ({ errCode, errMsg, message }) {
    return { errCode: errCode ?? -1, errMsg: errMsg ?? message };
  }
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export const install = (sdk, eventNames) => {
  window.events = [];
  for (const name of eventNames) {
    sdk.on(name, ({ data, errCode, errMsg }) => window.events.push({ name, data, errCode, errMsg }));
  }

  // A call that throws at once is a failure like any other.
  window.call = (name, ...args) => settle((async () => (await sdk[name](...args)).data)());

  window.said = 0;
  let isHeld = false;
  let isSending = false;

  /** Says `count` texts, each when the one before is through, again and again under its own id as a user would. */
  window.talk = async (peer, count, pauseMs, text) => {
    for (window.said = 0; window.said < count; window.said += 1) {
      const { data: message } = await window.call("createTextMessage", `${text} ${window.said}`);
      for (let isThrough = false; !isThrough; await sleep(pauseMs * (0.5 + Math.random()))) {
        while (isHeld) await sleep(1);
        isSending = true;
        isThrough = !(await window.call("sendMessage", { recvID: peer, groupID: "", message })).errCode;
        isSending = false;
      }
    }
  };
  /** Returns when what is being said is through; nothing more is said until `goOn`. */
  window.hold = async () => {
    isHeld = true;
    while (isSending) await sleep(1);
  };
  window.goOn = () => {
    isHeld = false;
  };

  window.isReady = true;
};
