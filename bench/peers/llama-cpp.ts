/** llama.cpp's prebuilt libraries through node-llama-cpp. Arguments: path of a GGUF file, size of the vocabulary, threads, "cpu" or "vulkan", "any" to take a software device too. */
import { type Engine, serve, timedEngine } from "./engine.ts";
import { load, version } from "./installed.ts";

/** The part of node-llama-cpp's interface that is used here. It is installed in this folder only when peers are measured. */
interface Sequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: { temperature: number; yieldEogToken: boolean }): AsyncGenerator<number, void, void>;
}
interface Llama {
  readonly gpu: string | false;
  getGpuDeviceNames(): Promise<string[]>;
  loadModel(options: { modelPath: string; useMmap: boolean; gpuLayers?: number }): Promise<{
    createContext(options: object): Promise<{ getSequence(): Sequence }>;
  }>;
}
interface Library {
  getLlama(options: object): Promise<Llama>;
  LlamaLogLevel: { error: string };
}

/** llama.cpp takes a driver that computes on the CPU like any other device; its speed says nothing. */
async function device(llama: Llama, software: boolean): Promise<string> {
  const names = (await llama.getGpuDeviceNames()).join(", ");
  if (names === "") throw new Error("llama.cpp finds no Vulkan device");
  if (!software && /llvmpipe|swiftshader|software/i.test(names)) throw new Error(`the only Vulkan device is a software one (${names}); --software measures it`);
  return names;
}

async function open(path: string, vocabulary: number, threads: number, build: string, software: boolean): Promise<Engine> {
  const { getLlama, LlamaLogLevel } = await load<Library>("node-llama-cpp");
  const gpu = build === "vulkan" ? "vulkan" : false;
  const llama = await getLlama({ gpu, build: "never", skipDownload: true, progressLogs: false, maxThreads: threads, logLevel: LlamaLogLevel.error });
  if (llama.gpu !== gpu) throw new Error(`node-llama-cpp gave its build for ${llama.gpu || "the CPU"}`);
  const about = gpu ? `, ${await device(llama, software)}` : "";
  const start = performance.now();
  const model = await llama.loadModel({ modelPath: path, useMmap: false, ...(gpu ? { gpuLayers: 1000 } : {}) });
  const loadSeconds = (performance.now() - start) / 1000;
  const context = await model.createContext({ contextSize: 2048, batchSize: 512, threads: { min: threads, ideal: threads } });
  const sequence = context.getSequence();
  async function* generate(ids: readonly number[], more: number): AsyncGenerator<number> {
    await sequence.clearHistory();
    let left = more + 1;
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      yield token;
      if (--left === 0) return;
    }
  }
  return { loadSeconds, about: `${version("node-llama-cpp")}${about}`, ...timedEngine(generate, vocabulary) };
}

const [path, vocabulary, threads, build, software] = process.argv.slice(2);
await serve(() => open(path as string, Number(vocabulary), Number(threads), build as string, software === "any"));
