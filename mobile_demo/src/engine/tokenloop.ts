/** For engines that give token ids: text, stop strings and figures from a stream of tokens. */
import { checkAbort } from '../errors';
import { StopFilter, TextStream } from '../tasks/stream';
import type { ShippedTokenizer } from '../tasks/tokenizer';
import type { GenerateOptions, Generated } from './types';

export interface Timing {
  readonly firstTokenMs: number;
  readonly tokensPerSecond: number;
}

/**
 * Takes tokens until the answer ends. `tokens` ends by itself before a stop token and where the context is full; it is
 * closed (`return`) when the answer ends earlier.
 */
export async function collect(
  tokens: AsyncGenerator<number>,
  promptTokens: number,
  tokenizer: ShippedTokenizer,
  options: GenerateOptions,
): Promise<{ generated: Generated; timing: Timing }> {
  const begin = performance.now();
  let first = begin;
  const stream = new TextStream((ids) => tokenizer.decode(ids));
  const filter = new StopFilter(options.stop);
  const ids: number[] = [];
  let text = '';
  const tell = (piece: string) => {
    if (piece === '') return;
    text += piece;
    options.onText?.(piece);
  };
  for await (const token of tokens) {
    if (ids.length === 0) first = performance.now();
    checkAbort(options.signal);
    ids.push(token);
    tell(filter.push(stream.push(token)));
    if (filter.stopped || ids.length >= options.maxNewTokens) break;
  }
  checkAbort(options.signal);
  tell(filter.push(stream.finish()));
  tell(filter.finish());
  const decodeMs = performance.now() - first;
  const timing = {
    firstTokenMs: ids.length === 0 ? performance.now() - begin : first - begin,
    tokensPerSecond: ids.length > 1 && decodeMs > 0 ? ((ids.length - 1) * 1000) / decodeMs : 0,
  };
  return { generated: { text, ids, promptTokens, generatedTokens: ids.length }, timing };
}
