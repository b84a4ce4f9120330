/** The engines of a phone, the best first. */
import { Platform } from 'react-native';

import type { EngineInfo } from './types';

const skipWebModel = /\.tflite$/;

const executorch: EngineInfo = {
  id: 'executorch',
  title: 'ExecuTorch',
  target: 'executorch',
  available: () => true,
  create: async () => new (await import('./executorch')).ExecuTorchEngine(),
};
const litertlm: EngineInfo = {
  id: 'litertlm',
  title: 'LiteRT-LM',
  target: 'litert',
  skip: skipWebModel,
  available: () => true,
  create: async () => new (await import('./litertlm')).LiteRTLMEngine(),
};
const coreml: EngineInfo = {
  id: 'coreml',
  title: 'Core ML',
  target: 'coreml',
  available: () => Platform.OS === 'ios' && Number.parseInt(String(Platform.Version), 10) >= 18,
  create: async () => new (await import('./coreml')).CoreMLEngine(),
};

export const ENGINES: readonly EngineInfo[] = Platform.OS === 'ios' ? [coreml, executorch, litertlm] : [executorch, litertlm];
