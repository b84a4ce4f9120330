/** The engines of a browser. */
import type { EngineInfo } from './types';

export const ENGINES: readonly EngineInfo[] = [
  {
    id: 'litertjs',
    title: 'LiteRT.js',
    target: 'litert',
    skip: /\.litertlm$/,
    available: () => typeof WebAssembly === 'object' && typeof Worker === 'function' && 'storage' in navigator,
    create: async () => new (await import('./litertjs')).LiteRTJsEngine(),
  },
];
