import { CbEvents, getSDK } from "@openim/client-sdk";
import { install } from "./harness.js";

install(getSDK(), Object.values(CbEvents));
