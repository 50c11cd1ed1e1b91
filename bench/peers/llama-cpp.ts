/** llama.cpp's prebuilt CPU library through node-llama-cpp. Arguments: path of a GGUF file, threads. */
import { type Engine, promptIds, serve } from "./engine.ts";

/** The part of node-llama-cpp's interface that is used here. It is installed in this folder only when peers are measured. */
interface Sequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: { temperature: number; yieldEogToken: boolean }): AsyncGenerator<number, void, void>;
}
interface Llama {
  loadModel(options: { modelPath: string; useMmap: boolean }): Promise<{
    createContext(options: object): Promise<{ getSequence(): Sequence }>;
  }>;
}
interface Library {
  getLlama(options: object): Promise<Llama>;
  LlamaLogLevel: { error: string };
}

async function open(path: string, threads: number): Promise<Engine> {
  const name: string = "node-llama-cpp";
  const { getLlama, LlamaLogLevel } = (await import(name)) as Library;
  const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, progressLogs: false, maxThreads: threads, logLevel: LlamaLogLevel.error });
  const start = performance.now();
  const model = await llama.loadModel({ modelPath: path, useMmap: false });
  const loadSeconds = (performance.now() - start) / 1000;
  const context = await model.createContext({ contextSize: 2048, batchSize: 512, threads: { min: threads, ideal: threads } });
  const sequence = context.getSequence();
  const vocabulary = 151936;
  /** Runs a prompt, then `more` tokens; seconds of both parts. */
  const run = async (depth: number, more: number): Promise<[number, number]> => {
    await sequence.clearHistory();
    const start = performance.now();
    const tokens = sequence.evaluate(promptIds(depth, vocabulary), { temperature: 0, yieldEogToken: true });
    if ((await tokens.next()).done) throw new Error("llama.cpp ended at the first token");
    const first = performance.now();
    for (let i = 0; i < more; i++) if ((await tokens.next()).done) throw new Error("llama.cpp ended early");
    const end = performance.now();
    await tokens.return();
    return [(first - start) / 1000, (end - first) / 1000];
  };
  return {
    loadSeconds,
    prefill: async (tokens) => (await run(tokens, 0))[0],
    decode: async (depth, tokens) => (await run(depth, tokens))[1],
  };
}

const [path, threads] = process.argv.slice(2);
await serve(() => open(path as string, Number(threads)));
