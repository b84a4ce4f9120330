/** Which engine runs a package on this device. */
import { AppError } from '../errors';
import type { Manifest } from '../packages/manifest';
import type { EngineId, EngineInfo } from './types';

/** The wanted engine when it can run the package, or else the first that can; null when none can. */
export function chooseEngine(engines: readonly EngineInfo[], manifest: Manifest, wanted: EngineId | null): EngineInfo | null {
  const able = engines.filter((one) => one.available() && manifest.targets[one.target]);
  return able.find((one) => one.id === wanted) ?? able[0] ?? null;
}

/** Raises AppError `memory` when the device has less than the package was measured to need. */
export function checkMemory(manifest: Manifest, target: string, deviceBytes: number | null): void {
  const needed = manifest.targets[target]?.needs.ram_bytes ?? 0;
  // the system and other apps want their share too
  if (deviceBytes !== null && needed > deviceBytes * 0.8) {
    throw new AppError('memory', `${needed} bytes are needed, the device has ${deviceBytes}`);
  }
}
