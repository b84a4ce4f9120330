/**
 * `model.sig`: an OpenSSF model-signing bundle, checked before anything else of a package is parsed.
 *
 * The bundle holds a DSSE envelope over an in-toto statement that lists every file with its SHA-256. Signed with a key
 * it names that key by a hint; certificates (Sigstore) need a log and a root of trust and are not supported here.
 */
import { concat, fromBase64, fromUtf8, utf8 } from '../bytes';
import { AppError } from '../errors';
import { fingerprint, verifyEcdsa, type TrustedKey } from './keys';

export const SIGNATURE_FILE = 'model.sig';
export const MAX_SIGNATURE_BYTES = 4 * 2 ** 20;
const PAYLOAD_TYPE = 'application/vnd.in-toto+json';
const PREDICATE_TYPE = 'https://model_signing/signature/v1.0';

/** Digests by path, as the signer states them. */
export type SignedFiles = ReadonlyMap<string, string>;

export type SignatureState =
  | { readonly kind: 'trusted'; readonly signer: string; readonly fingerprint: string; readonly files: SignedFiles }
  | { readonly kind: 'untrusted'; readonly fingerprint: string }
  | { readonly kind: 'unsigned' };

/**
 * Who signed. A bundle by no trusted key is `untrusted`.
 * Raises AppError `tampered` when the bundle is broken, or names a trusted key that did not sign it.
 */
export async function checkSignature(bundle: Uint8Array | null, keys: readonly TrustedKey[]): Promise<SignatureState> {
  if (bundle === null) return { kind: 'unsigned' };
  const { hint, payload, signature } = parseBundle(bundle);
  const key = keys.find((one) => fingerprint(one.pem) === hint);
  if (!key) return { kind: 'untrusted', fingerprint: hint };
  if (!(await verifyEcdsa(key.pem, signature, preAuthEncoding(payload)))) {
    throw new AppError('tampered', `model.sig names the key of ${key.name}, which did not sign it`);
  }
  return { kind: 'trusted', signer: key.name, fingerprint: hint, files: signedFiles(payload) };
}

/** Raises AppError `tampered` unless the signer stated this digest for this path. */
export function checkSigned(state: SignatureState, path: string, digest: string): void {
  if (state.kind === 'trusted' && state.files.get(path) !== digest) {
    throw new AppError('tampered', `${path} is not what ${state.signer} signed`);
  }
}

/** What DSSE signs: type and payload with their lengths, so that neither can be taken for the other. */
export const preAuthEncoding = (payload: Uint8Array): Uint8Array<ArrayBuffer> =>
  concat([utf8(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);

interface Bundle {
  readonly hint: string;
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

function parseBundle(bytes: Uint8Array): Bundle {
  if (bytes.length > MAX_SIGNATURE_BYTES) throw new AppError('tampered', 'model.sig is larger than any signature');
  try {
    const bundle = JSON.parse(fromUtf8(bytes));
    const envelope = bundle.dsseEnvelope;
    const hint: unknown = bundle.verificationMaterial.publicKey?.hint ?? '';
    if (envelope.payloadType !== PAYLOAD_TYPE || typeof hint !== 'string') throw new Error('not a model signature');
    if (envelope.signatures.length !== 1) throw new Error('not exactly one signature');
    return { hint, payload: fromBase64(envelope.payload), signature: fromBase64(envelope.signatures[0].sig) };
  } catch (error) {
    throw new AppError('tampered', `model.sig cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function signedFiles(payload: Uint8Array): SignedFiles {
  const files = new Map<string, string>();
  try {
    const statement = JSON.parse(fromUtf8(payload));
    const { serialization, resources } = statement.predicate;
    if (statement.predicateType !== PREDICATE_TYPE || serialization.method !== 'files') throw new Error('another kind');
    for (const { name, algorithm, digest } of resources) {
      if (typeof name !== 'string' || algorithm !== 'sha256' || typeof digest !== 'string') throw new Error(String(name));
      if (files.has(name)) throw new Error(`${name} twice`);
      files.set(name, digest);
    }
  } catch (error) {
    throw new AppError('tampered', `the signed statement cannot be read: ${String(error)}`);
  }
  return files;
}
