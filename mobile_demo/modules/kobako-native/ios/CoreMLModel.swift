// A kobako package in Core ML: the functions `prefill` and `decode` over one state, as targets/coreml/runtime.py
// drives them. Never run on the project's own machines: see the app's README.
import CoreML
import ExpoModulesCore
import Foundation

enum CoreMLModelError: Error {
  case notLoaded
  case contextFull
  case noLogits
  case noTable
}

final class CoreMLModel: SharedObject {
  private var functions: [String: MLModel] = [:]
  private var state: MLState?
  private var fed: [Int32] = []
  private var contextTokens = 0
  private var prefillTokens = 1
  private var table: EmbeddingTable?

  /// `table` is the path of embeddings.safetensors, for models that read per-layer inputs from it.
  func load(path: String, contextTokens: Int, prefillTokens: Int, table: String? = nil) async throws {
    let compiled = try await Self.compiled(URL(fileURLWithPath: path))
    for name in ["prefill", "decode"] {
      let configuration = MLModelConfiguration()
      configuration.computeUnits = .cpuAndNeuralEngine
      configuration.functionName = name
      functions[name] = try await MLModel.load(contentsOf: compiled, configuration: configuration)
    }
    self.contextTokens = contextTokens
    self.prefillTokens = prefillTokens
    self.table = try openTable(table)
    try await reset()
  }

  func reset() async throws {
    guard let decode = functions["decode"] else { throw CoreMLModelError.notLoaded }
    state = decode.makeState()
    fed = []
  }

  /// Appends tokens; the logits that follow the last of them.
  func append(_ ids: [Int32]) async throws -> [Float] {
    guard fed.count + ids.count <= contextTokens, !ids.isEmpty else { throw CoreMLModelError.contextFull }
    var logits: [Float] = []
    var begin = 0
    while begin < ids.count {
      let end = min(begin + prefillTokens, ids.count)
      logits = try await run(Array(ids[begin..<end]))
      begin = end
    }
    return logits
  }

  func unload() {
    functions = [:]
    state = nil
    fed = []
    table = nil
  }

  private func run(_ ids: [Int32]) async throws -> [Float] {
    if ids.count == 1 {
      return try await logits("decode", ids, ["position": try vector(Int32(fed.count))], ids)
    }
    // a chunk must lie inside the cache as a whole; near its end, tokens already fed are fed again
    let start = min(fed.count, contextTokens - prefillTokens)
    let tokens = Array(fed[start...]) + ids
    let padded = tokens + Array(repeating: 0, count: prefillTokens - tokens.count)
    let inputs = [
      "position": try vector(Int32(start)),
      "last_index": try vector(Int32(tokens.count - 1)),
    ]
    return try await logits("prefill", padded, inputs, ids)
  }

  /// Runs a function on `tokens`, of which `ids` have not been fed before.
  private func logits(
    _ function: String, _ tokens: [Int32], _ others: [String: MLMultiArray], _ ids: [Int32]
  ) async throws -> [Float] {
    guard let model = functions[function], let state else { throw CoreMLModelError.notLoaded }
    var inputs = others
    inputs["input_ids"] = try matrix(tokens)
    if let table {
      let shape = [1, tokens.count, table.layers, table.width]
      inputs[Self.perLayerInputs] = MLMultiArray(
        MLShapedArray<Float16>(scalars: try table.perLayerInputs(tokens), shape: shape))
    }
    let provider = try MLDictionaryFeatureProvider(dictionary: inputs.mapValues { MLFeatureValue(multiArray: $0) })
    let output = try await model.prediction(from: provider, using: state)
    guard let array = output.featureValue(for: "logits")?.multiArrayValue else { throw CoreMLModelError.noLogits }
    fed += ids
    return MLShapedArray<Float>(converting: array).scalars
  }

  private static let perLayerInputs = "per_layer_inputs"

  /// The table a model is fed from, of the shape that it takes; nil for models that take none.
  private func openTable(_ path: String?) throws -> EmbeddingTable? {
    let inputs = functions["decode"]?.modelDescription.inputDescriptionsByName
    guard let wanted = inputs?[Self.perLayerInputs]?.multiArrayConstraint?.shape else { return nil }
    guard let path, wanted.count == 4 else { throw CoreMLModelError.noTable }
    let table = try EmbeddingTable(path: path)
    try table.check(layers: wanted[2].intValue, width: wanted[3].intValue)
    return table
  }

  private func matrix(_ ids: [Int32]) throws -> MLMultiArray {
    MLMultiArray(MLShapedArray<Int32>(scalars: ids, shape: [1, ids.count]))
  }

  private func vector(_ value: Int32) throws -> MLMultiArray {
    MLMultiArray(MLShapedArray<Int32>(scalars: [value], shape: [1]))
  }

  /// Compiling takes seconds: the result is kept beside the package and used again.
  private static func compiled(_ package: URL) async throws -> URL {
    let kept = package.deletingPathExtension().appendingPathExtension("mlmodelc")
    if FileManager.default.fileExists(atPath: kept.path) { return kept }
    let fresh = try await MLModel.compileModel(at: package)
    try FileManager.default.moveItem(at: fresh, to: kept)
    return kept
  }
}
