/** Everything that can go wrong, by a code that the interface has words for in every language. */
export type ErrorCode =
  | 'network' // no answer, or a broken one
  | 'notPackage' // there is no kobako.json, or it is not valid
  | 'tooNew' // the manifest's format is of a later major version
  | 'tampered' // a digest or a signature does not match
  | 'unsigned' // no signature, and the user has not allowed that
  | 'untrusted' // signed, but by none of the trusted keys
  | 'unproven' // the package says of itself that its proof failed
  | 'space' // not enough storage
  | 'memory' // the device has less memory than the package needs
  | 'noEngine' // no engine of this device runs any target of the package
  | 'system' // the platform has nothing of its own ready for what was asked
  | 'tooLong' // the text does not fit the model's context
  | 'engine' // the engine refused or crashed
  | 'aborted'; // stopped by the user

export class AppError extends Error {
  constructor(
    readonly code: ErrorCode,
    readonly detail: string,
  ) {
    super(`${code}: ${detail}`);
    this.name = 'AppError';
  }
}

/** Any thrown value as an AppError; an AbortError becomes `aborted`, all else takes `fallback`. */
export function asAppError(error: unknown, fallback: ErrorCode): AppError {
  if (error instanceof AppError) return error;
  if (error instanceof Error && error.name === 'AbortError') return new AppError('aborted', 'stopped');
  return new AppError(fallback, error instanceof Error ? error.message : String(error));
}

/** Throws `aborted` when the signal has fired. */
export function checkAbort(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AppError('aborted', 'stopped');
}
