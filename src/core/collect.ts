/**
 * Asks V8 to look for handles that nobody holds. V8 counts a handle as a few bytes, whatever the array behind it takes, so it would let arrays pile up in programs that do not
 * use `tidy` or `dispose`.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { env } from "./env.ts";

/** Bytes of arrays that are made between two collections at least. */
const interval = 1 << 20;
/** A collection waits until this many times the duration of the last one has passed: 1 % of the time at most. */
const rest = 100;

let made = 0;
let waiting = false;
let notBefore = 0;
let collector: (() => void) | undefined;

function findCollector(): () => void {
  setFlagsFromString("--expose-gc");
  try {
    return runInNewContext("gc") as () => void;
  } finally {
    // Contexts that others make later are as they would be.
    setFlagsFromString("--no-expose-gc");
  }
}
function collect(): void {
  waiting = false;
  if (!env("MLX_COLLECT")) return;
  made = 0;
  const start = performance.now();
  collector ??= findCollector();
  collector();
  const end = performance.now();
  notBefore = end + rest * (end - start);
}

/** Told of every storage that is made. The collection takes place when the event loop is reached, never within a computation. */
export function storageMade(bytes: number): void {
  made += bytes;
  if (made < interval || waiting || performance.now() < notBefore) return;
  waiting = true;
  setImmediate(collect).unref();
}
