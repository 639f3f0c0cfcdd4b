import { CbEvents, getSDK } from "./node_modules/@openim/wasm-client-sdk/lib/index.es.js";
import { install, settle } from "./harness.js";

const ASSETS = "node_modules/@openim/wasm-client-sdk/assets";

const sdk = getSDK({
  coreWasmPath: `${ASSETS}/openIM.wasm`,
  sqlWasmPath: new URL(`${ASSETS}/sql-wasm.wasm`, location.href).href,
  debug: false,
});

/** A function of the binary, without the package's JavaScript around it. */
window.callCore = (name, ...args) => settle(window[name](crypto.randomUUID(), ...args));

/** The SDK's SQLite file, base64. */
window.exportDatabase = async () => {
  const { data: url } = await sdk.exportDB();
  const blob = await (await fetch(url)).blob();
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1]);
    reader.readAsDataURL(blob);
  });
};

/** A picture message of that many bytes; sending it uploads them. */
window.createPicture = (name, size) => {
  const file = new File([Uint8Array.from({ length: size }, (_, index) => (index * 7) % 251)], name, { type: "image/png" });
  const picture = { uuid: crypto.randomUUID(), type: file.type, size, width: 20, height: 10, url: "" };
  const pictures = { sourcePicture: picture, bigPicture: { ...picture }, snapshotPicture: { ...picture } };
  return settle(sdk.createImageMessageByFile({ ...pictures, sourcePath: "", file }).then(({ data }) => data));
};

/** What a picture's address gives: status, type and whether the bytes are those of `createPicture`. */
window.fetchPicture = async (url) => {
  const answer = await fetch(url);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const isSame = bytes.every((byte, index) => byte === (index * 7) % 251);
  return { status: answer.status, type: answer.headers.get("Content-Type"), size: bytes.length, isSame };
};

install(sdk, Object.values(CbEvents));
