// A kobako package in Core ML: the functions `prefill` and `decode` over one state, as targets/coreml/runtime.py
// drives them. Never run on the project's own machines: see the app's README.
import CoreML
import ExpoModulesCore
import Foundation

enum CoreMLModelError: Error {
  case notLoaded
  case contextFull
  case noLogits
}

final class CoreMLModel: SharedObject {
  private var functions: [String: MLModel] = [:]
  private var state: MLState?
  private var fed: [Int32] = []
  private var contextTokens = 0
  private var prefillTokens = 1

  func load(path: String, contextTokens: Int, prefillTokens: Int) async throws {
    let compiled = try await Self.compiled(URL(fileURLWithPath: path))
    for name in ["prefill", "decode"] {
      let configuration = MLModelConfiguration()
      configuration.computeUnits = .cpuAndNeuralEngine
      configuration.functionName = name
      functions[name] = try await MLModel.load(contentsOf: compiled, configuration: configuration)
    }
    self.contextTokens = contextTokens
    self.prefillTokens = prefillTokens
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
  }

  private func run(_ ids: [Int32]) async throws -> [Float] {
    if ids.count == 1 {
      let inputs = ["input_ids": try matrix(ids), "position": try vector(Int32(fed.count))]
      return try await logits("decode", inputs, ids)
    }
    // a chunk must lie inside the cache as a whole; near its end, tokens already fed are fed again
    let start = min(fed.count, contextTokens - prefillTokens)
    let tokens = Array(fed[start...]) + ids
    let padded = tokens + Array(repeating: 0, count: prefillTokens - tokens.count)
    let inputs = [
      "input_ids": try matrix(padded),
      "position": try vector(Int32(start)),
      "last_index": try vector(Int32(tokens.count - 1)),
    ]
    return try await logits("prefill", inputs, ids)
  }

  private func logits(_ function: String, _ inputs: [String: MLMultiArray], _ ids: [Int32]) async throws -> [Float] {
    guard let model = functions[function], let state else { throw CoreMLModelError.notLoaded }
    let provider = try MLDictionaryFeatureProvider(dictionary: inputs.mapValues { MLFeatureValue(multiArray: $0) })
    let output = try await model.prediction(from: provider, using: state)
    guard let array = output.featureValue(for: "logits")?.multiArrayValue else { throw CoreMLModelError.noLogits }
    fed += ids
    return MLShapedArray<Float>(converting: array).scalars
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
