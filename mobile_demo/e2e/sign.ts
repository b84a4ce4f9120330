/** Signs a package as `model_signing sign key` (PyPI model-signing 1.1) does: the same statement, envelope and bundle. */
import { createHash, sign, type KeyObject } from 'node:crypto';

const sha256 = (data: string | Buffer): string => createHash('sha256').update(data).digest('hex');

/** The text of `model.sig` for files given as digests by path. */
export function signBundle(digests: Readonly<Record<string, string>>, privateKey: KeyObject, publicPem: string, name = 'package'): string {
  const paths = Object.keys(digests).sort();
  const root = createHash('sha256');
  for (const path of paths) root.update(Buffer.from(digests[path] ?? '', 'hex'));
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name, digest: { sha256: root.digest('hex') } }],
    predicateType: 'https://model_signing/signature/v1.0',
    predicate: {
      serialization: { method: 'files', ignore_paths: ['model.sig'], allow_symlinks: false, hash_type: 'sha256' },
      resources: paths.map((path) => ({ name: path, algorithm: 'sha256', digest: digests[path] })),
    },
  };
  const payload = Buffer.from(JSON.stringify(statement, null, 2));
  const type = 'application/vnd.in-toto+json';
  const encoding = Buffer.concat([Buffer.from(`DSSEv1 ${type.length} ${type} ${payload.length} `), payload]);
  const signature = sign('sha256', encoding, privateKey);
  return JSON.stringify({
    mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
    verificationMaterial: { publicKey: { hint: sha256(publicPem) }, tlogEntries: [] },
    dsseEnvelope: {
      payload: payload.toString('base64'),
      payloadType: type,
      signatures: [{ sig: signature.toString('base64'), keyid: '' }],
    },
  });
}
