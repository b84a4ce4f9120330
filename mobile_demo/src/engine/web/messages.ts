/** What page and worker say to each other; every request has a number, and every answer repeats it. */
export type Request =
  | { readonly kind: 'load'; readonly path: string; readonly threads: number }
  | { readonly kind: 'generate'; readonly ids: readonly number[]; readonly stopIds: readonly number[]; readonly limit: number }
  | { readonly kind: 'logits'; readonly ids: readonly number[] }
  | { readonly kind: 'stop'; readonly of: number };

export type Answer =
  | { readonly kind: 'token'; readonly token: number }
  | { readonly kind: 'done'; readonly logits?: Float32Array; readonly memoryBytes: number }
  | { readonly kind: 'failed'; readonly code: 'engine' | 'tooLong' | 'memory'; readonly detail: string };

export type Numbered<T> = T & { readonly id: number };
