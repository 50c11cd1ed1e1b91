/**
 * wllama: llama.cpp compiled to WebAssembly for browsers. Node lacks the browser's Worker and its fetch of files, so they are provided here, on Node's
 * threads. Needs 64-bit memories and JSPI (Node 24 with --experimental-wasm-jspi). Arguments: path of a GGUF file, size of the vocabulary, threads.
 */
import { openAsBlob } from "node:fs";
import { Worker as NodeWorker } from "node:worker_threads";
import { type Engine, serve, timedEngine } from "./engine.ts";
import { fileOf, load, version } from "./installed.ts";

interface Chunk {
  readonly choices: readonly { readonly text?: string }[];
}
interface Library {
  readonly Wllama: (new (paths: { default: string }, options: object) => {
    loadModel(blobs: readonly unknown[], options: object): Promise<void>;
    createCompletion(options: object): Promise<unknown>;
  }) & { getLibllamaVersion(): string };
}

/** Emscripten reads file: URLs by XMLHttpRequest only, so the module gets an address of its own, which fetch answers from the file. */
const wasmUrl = "http://wllama.invalid/wllama.wasm";
const wasmFile = fileOf("@wllama/wllama", "esm/wasm/wllama.wasm");
/** Runs first in every worker: what a browser's worker has. Its threads start workers of their own, so the class is defined there too. */
const prelude = (worker: string): string => `{
const { parentPort, workerData, Worker: NodeWorker } = require("node:worker_threads");
// Emscripten asks for these two before it takes Node for a browser.
process.type = "renderer";
// The class below was compiled by esbuild, which names functions through this helper.
globalThis.__name = (f) => f;
globalThis.WorkerGlobalScope = class {};
globalThis.self = globalThis;
globalThis.name = workerData.name;
globalThis.location = { href: "file:///worker.js" };
globalThis.postMessage = (message, options) => parentPort.postMessage(message, Array.isArray(options) ? options : options?.transfer);
parentPort.on("message", (data) => globalThis.onmessage?.({ data }));
const fetchOfNode = globalThis.fetch;
globalThis.fetch = async (url, options) => String(url) === ${JSON.stringify(wasmUrl)}
  ? new Response(require("node:fs").readFileSync(${JSON.stringify(wasmFile)}), { headers: { "content-type": "application/wasm" } }) : fetchOfNode(url, options);
globalThis.Worker = (${worker})(NodeWorker, workerData.prelude);
}`;

/**
 * The browser's Worker and URL.createObjectURL on Node's. They are also sent to the workers as text: nothing from outside may be used in them. A worker
 * made from a Blob whose text is known starts at once: the thread that makes it may block before its event loop turns again.
 */
function webWorker(Base: typeof NodeWorker, before: string): unknown {
  const texts = new Map<Blob, string>();
  const blobs = new Map<string, Blob>();
  URL.createObjectURL = (blob) => {
    const url = `blob:nodedata:${blobs.size}`;
    blobs.set(url, blob as Blob);
    return url;
  };
  return class {
    onmessage: ((e: { data: unknown }) => void) | undefined;
    onerror: ((e: unknown) => void) | undefined;
    worker: NodeWorker | undefined;
    waiting: ((w: NodeWorker) => void)[] = [];
    constructor(url: string, options?: { name?: string }) {
      const blob = blobs.get(String(url)) as Blob;
      const start = (code: string): void => {
        texts.set(blob, code);
        const worker = new Base(`${before}\n${code}`, { eval: true, workerData: { name: options?.name ?? "", prelude: before } });
        this.worker = worker;
        worker.on("message", (data) => this.onmessage?.({ data }));
        worker.on("error", (error) => this.onerror?.(error));
        for (const f of this.waiting) f(worker);
      };
      const known = texts.get(blob);
      if (known === undefined) void blob.text().then(start);
      else start(known);
    }
    whenStarted(f: (w: NodeWorker) => void): void {
      if (this.worker) f(this.worker);
      else this.waiting.push(f);
    }
    postMessage(message: unknown, options?: { transfer?: [] } | []): void {
      this.whenStarted((w) => w.postMessage(message, Array.isArray(options) ? options : options?.transfer));
    }
    terminate(): void {
      this.whenStarted((w) => void w.terminate());
    }
  };
}

/** wllama takes and gives text. In the synthetic vocabulary (gguf.ts) a character of ASCII is the token of its code, the others are numbered words, and nothing merges. */
const textOf = (ids: readonly number[]): string => ids.map((id) => String.fromCharCode(id > 32 && id < 127 ? id : 33 + (id % 94))).join("");
const tokenOf = (text: string): number => (text.length === 1 ? text.charCodeAt(0) : Number(text.slice(1)));

async function open(path: string, vocabulary: number, threads: number): Promise<Engine> {
  if (!("Suspending" in WebAssembly)) throw new Error("it needs WebAssembly's JSPI and 64-bit memories: Node 24 with --experimental-wasm-jspi");
  const { Wllama } = await load<Library>("@wllama/wllama");
  Object.assign(globalThis, { self: globalThis, location: { href: "file:///" }, Worker: webWorker(NodeWorker, prelude(webWorker.toString())) });
  const wllama = new Wllama({ default: wasmUrl }, { suppressNativeLog: process.env["WLLAMA_LOG"] !== "1", logger: { ...console, debug: () => undefined, log: () => undefined }, cacheManager: {}, modelManager: {} });
  const start = performance.now();
  await wllama.loadModel([Object.assign(await openAsBlob(path), { name: "model.gguf" })], { n_threads: threads, n_ctx: 1024, n_batch: 512, n_gpu_layers: 0, n_parallel: 1, warmup: false });
  const loadSeconds = (performance.now() - start) / 1000;
  async function* generate(ids: readonly number[], more: number): AsyncGenerator<number> {
    const options = { prompt: textOf(ids), max_tokens: more + 1, n_predict: more + 1, temperature: 0, top_k: 1, cache_prompt: false, ignore_eos: true, stream: true };
    let left = more + 1;
    for await (const chunk of (await wllama.createCompletion(options)) as AsyncIterable<Chunk>) {
      if (process.env["WLLAMA_LOG"] === "1") console.log(JSON.stringify(chunk).slice(0, 600));
      const { text = "" } = chunk.choices[0] ?? {};
      if (text !== "" && left-- > 0) yield tokenOf(text);
    }
  }
  return { loadSeconds, about: `${version("@wllama/wllama")} (llama.cpp ${Wllama.getLibllamaVersion()})`, ...timedEngine(generate, vocabulary) };
}

const [path, vocabulary, threads] = process.argv.slice(2);
await serve(() => open(path as string, Number(vocabulary), Number(threads)));
