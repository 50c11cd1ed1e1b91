/** Error of an operation: the message starts with the op's name in brackets. */
export class MxError extends Error {
  override name = "MxError";
}

/** Makes "[op] what is wrong, got what". */
export const opError = (op: string, message: string): MxError => new MxError(`[${op}] ${message}`);
