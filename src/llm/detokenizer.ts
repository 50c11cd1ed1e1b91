/** Token ids to text, piece by piece. No piece ever holds a part of a character, and a token costs the same however long the text is. */

/** What a detokenizer needs of a tokenizer. */
export interface TokenSource {
  /** The token's own spelling; undefined for ids outside the vocabulary. */
  idToToken(id: number): string | undefined;
  /** Tokens that stand for their spelling as it is, outside the model's encoding of bytes. */
  isAddedToken(id: number): boolean;
  decode(ids: readonly number[]): string;
}

export interface StreamingDetokenizer {
  addToken(id: number): void;
  /** No more tokens come: what was held back becomes text. */
  finalize(): void;
  /** The text that became complete since this was last read. */
  readonly lastSegment: string;
  /** All of the text so far. */
  readonly text: string;
  reset(): void;
}

/** Bytes of a token. */
type TokenBytes = (id: number) => Uint8Array;

/** For tokenizers whose tokens are byte strings. A decoder for UTF-8 holds the bytes of an unfinished character back. */
class ByteDetokenizer implements StreamingDetokenizer {
  #bytes: TokenBytes;
  /** Removes one space at the start of the text, which such tokenizers put there. */
  #stripFirst: boolean;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #pieces: string[] = [];
  #read = 0;
  #started = false;

  constructor(bytes: TokenBytes, stripFirst: boolean) {
    this.#bytes = bytes;
    this.#stripFirst = stripFirst;
  }
  addToken(id: number): void {
    this.#push(this.#decoder.decode(this.#bytes(id), { stream: true }));
  }
  finalize(): void {
    this.#push(this.#decoder.decode());
  }
  #push(piece: string): void {
    if (piece === "") return;
    const strip = this.#stripFirst && !this.#started && piece.startsWith(" ");
    this.#started = true;
    this.#pieces.push(strip ? piece.slice(1) : piece);
  }
  get lastSegment(): string {
    const segment = this.#pieces.slice(this.#read).join("");
    this.#read = this.#pieces.length;
    return segment;
  }
  get text(): string {
    return this.#pieces.join("");
  }
  reset(): void {
    this.#decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    this.#pieces = [];
    this.#read = 0;
    this.#started = false;
  }
}

/**
 * For any other tokenizer: decodes a window of the last tokens before and after each new one and takes the difference, unless the text
 * ends in an unfinished character.
 */
class WindowDetokenizer implements StreamingDetokenizer {
  #source: TokenSource;
  #ids: number[] = [];
  /** Tokens from here on are decoded; those before `#done` have given their text. */
  #from = 0;
  #done = 0;
  #pieces: string[] = [];
  #read = 0;

  constructor(source: TokenSource) {
    this.#source = source;
  }
  addToken(id: number): void {
    this.#ids.push(id);
    this.#advance(false);
  }
  finalize(): void {
    this.#advance(true);
  }
  #advance(final: boolean): void {
    const before = this.#source.decode(this.#ids.slice(this.#from, this.#done));
    const after = this.#source.decode(this.#ids.slice(this.#from));
    if (after.length <= before.length || (!final && after.endsWith("\ufffd"))) return;
    this.#pieces.push(after.slice(before.length));
    this.#from = this.#done;
    this.#done = this.#ids.length;
  }
  get lastSegment(): string {
    const segment = this.#pieces.slice(this.#read).join("");
    this.#read = this.#pieces.length;
    return segment;
  }
  get text(): string {
    return this.#pieces.join("");
  }
  reset(): void {
    this.#ids = [];
    this.#from = 0;
    this.#done = 0;
    this.#pieces = [];
    this.#read = 0;
  }
}

/**
 * The characters that byte-level BPE (GPT-2) writes for the bytes: printable Latin-1 characters stand for themselves, the others follow
 * from U+0100 on, in order.
 */
const byteOfCharacter: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 256;
  for (let b = 0; b < 256; b++) {
    const printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    map.set(String.fromCharCode(printable ? b : next++), b);
  }
  return map;
})();

const encoder = new TextEncoder();

/** Remembers the bytes of tokens already met. */
function memoized(compute: TokenBytes): TokenBytes {
  const known = new Map<number, Uint8Array>();
  return (id) => {
    let bytes = known.get(id);
    if (!bytes) known.set(id, (bytes = compute(id)));
    return bytes;
  };
}

function byteLevelBytes(source: TokenSource): TokenBytes {
  return memoized((id) => {
    const token = source.idToToken(id) ?? "";
    if (source.isAddedToken(id)) return encoder.encode(token);
    const bytes: number[] = [];
    for (const c of token) {
      const b = byteOfCharacter.get(c);
      if (b === undefined) bytes.push(...encoder.encode(c));
      else bytes.push(b);
    }
    return Uint8Array.from(bytes);
  });
}

function sentencePieceBytes(source: TokenSource): TokenBytes {
  return memoized((id) => {
    const token = source.idToToken(id) ?? "";
    if (source.isAddedToken(id)) return encoder.encode(token);
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    return byte ? Uint8Array.of(Number.parseInt(byte, 16)) : encoder.encode(token.replaceAll("\u2581", " "));
  });
}

/** A step of the `decoder` in tokenizer.json. */
interface DecoderSpec {
  type?: string;
  decoders?: readonly DecoderSpec[];
  prepend_scheme?: string;
  add_prefix_space?: boolean;
  content?: string;
  start?: number;
  pattern?: { String?: string };
}

/** Picks the detokenizer that fits the `decoder` of tokenizer.json. */
export function makeDetokenizer(source: TokenSource, decoder: DecoderSpec | null | undefined): () => StreamingDetokenizer {
  const steps = decoder?.type === "Sequence" ? (decoder.decoders ?? []) : decoder ? [decoder] : [];
  const find = (type: string): DecoderSpec | undefined => steps.find((s) => s.type === type);
  if (find("ByteLevel")) {
    const bytes = byteLevelBytes(source);
    return () => new ByteDetokenizer(bytes, false);
  }
  const metaspace = find("Metaspace");
  const replacesMarks = steps.some((s) => s.type === "Replace" && s.pattern?.String === "\u2581" && s.content === " ");
  if (metaspace || (replacesMarks && steps.every((s) => ["Replace", "ByteFallback", "Fuse", "Strip"].includes(s.type ?? "")))) {
    const strip = find("Strip");
    const stripFirst = metaspace ? metaspace.prepend_scheme !== "never" && metaspace.add_prefix_space !== false : strip?.content === " " && (strip.start ?? 0) > 0;
    const bytes = sentencePieceBytes(source);
    return () => new ByteDetokenizer(bytes, stripFirst);
  }
  return () => new WindowDetokenizer(source);
}
