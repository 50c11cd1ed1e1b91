/** `mlx-vk generate`: text from a prompt, printed as it comes. */
import { readFileSync } from "node:fs";
import { type ChatMessage, type GenerationResponse, streamGenerate, type Tokenizer } from "../llm/index.ts";
import { deviceText, loadModel, type ModelOptions, samplerOf, type SamplingOptions } from "./session.ts";
import { INTERRUPTED, interruptSignal, RULE, tolerateClosedPipe } from "./terminal.ts";

interface GenerateOptions extends ModelOptions, SamplingOptions {
  prompt?: string;
  promptIds?: number[];
  ignoreChatTemplate?: boolean;
  json?: boolean;
}

/** The prompt as typed: `-` is standard input, and \n and \t are the characters they stand for, as in mlx_lm. */
function promptText(options: GenerateOptions): string {
  if (options.prompt === undefined) throw new Error("give a prompt with --prompt, or token ids with --prompt-ids");
  const text = options.prompt === "-" ? readFileSync(0, "utf8") : options.prompt.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
  if (text === "") throw new Error("the prompt is empty");
  return text;
}

async function promptIds(options: GenerateOptions, tokenizer: Tokenizer | undefined): Promise<number[]> {
  if (options.promptIds) {
    if (options.promptIds.length === 0) throw new Error("the prompt is empty: --prompt-ids names no token");
    return options.promptIds;
  }
  const text = promptText(options);
  if (!tokenizer) throw new Error("this model has no tokenizer: give the prompt with --prompt-ids");
  if (options.ignoreChatTemplate || tokenizer.chatTemplate === undefined) {
    return tokenizer.encode(text, { addSpecialTokens: !tokenizer.bosToken || !text.startsWith(tokenizer.bosToken) });
  }
  const messages: ChatMessage[] = options.systemPrompt === undefined ? [] : [{ role: "system", content: options.systemPrompt }];
  messages.push({ role: "user", content: text });
  return tokenizer.encode(await tokenizer.applyChatTemplate(messages), { addSpecialTokens: false });
}

/** What is printed at the end. */
interface Summary {
  text: string;
  tokens: number[];
  promptTokens: number;
  promptTps: number;
  generationTokens: number;
  generationTps: number;
  peakMemory: number;
  finishReason: GenerationResponse["finishReason"];
  /** The device that ran: cpu or gpu, and the GPU's name. */
  device: string;
}

function printStatistics(s: Summary): void {
  process.stdout.write(`\n${RULE}\n`);
  process.stdout.write(`Prompt: ${s.promptTokens} tokens, ${s.promptTps.toFixed(3)} tokens-per-sec\n`);
  process.stdout.write(`Generation: ${s.generationTokens} tokens, ${s.generationTps.toFixed(3)} tokens-per-sec\n`);
  process.stdout.write(`Peak memory: ${s.peakMemory.toFixed(3)} GB\n`);
  process.stdout.write(`Device: ${s.device}\n`);
}

export async function generateCommand(options: GenerateOptions): Promise<void> {
  tolerateClosedPipe();
  if (!options.promptIds && options.prompt !== "-") promptText(options);
  const { model, tokenizer } = await loadModel(options);
  const ids = await promptIds(options, tokenizer);
  const sampler = samplerOf(options);
  const { signal, release } = interruptSignal();
  const summary: Summary = { text: "", tokens: [], promptTokens: ids.length, promptTps: 0, generationTokens: 0, generationTps: 0, peakMemory: 0, finishReason: null, device: deviceText() };
  const print = (piece: string): void => void (options.json || process.stdout.write(piece));
  print(`${RULE}\n`);
  try {
    for await (const r of streamGenerate(model, tokenizer, ids, { maxTokens: options.maxTokens, sampler, signal })) {
      summary.text += r.text;
      summary.tokens.push(r.token);
      summary.promptTps = r.promptTps;
      summary.generationTokens = r.generationTokens;
      summary.generationTps = r.generationTps;
      summary.peakMemory = r.peakMemory;
      summary.finishReason = r.finishReason;
      print(tokenizer ? r.text : `${summary.tokens.length > 1 ? "," : ""}${r.token}`);
    }
    if (options.maxTokens === 0) summary.finishReason = "length";
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = INTERRUPTED;
  } finally {
    release();
  }
  if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  else printStatistics(summary);
}
