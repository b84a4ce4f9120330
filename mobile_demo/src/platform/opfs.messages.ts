/** What the page asks the private file system's worker. */
export type StorageRequest =
  | { readonly kind: 'size' | 'remove' | 'list'; readonly path: string }
  | { readonly kind: 'read'; readonly path: string; readonly begin: number; readonly end?: number }
  | { readonly kind: 'write' | 'append'; readonly path: string; readonly bytes: Uint8Array };

export type StorageCall = StorageRequest & { readonly id: number };
export type StorageAnswer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string; readonly name: string };
