// What JavaScript sees of the native side on iOS. Never built on the project's own machines: see the app's README.
import CryptoKit
import ExpoModulesCore
import Foundation

public final class KobakoNativeModule: Module {
  public func definition() -> ModuleDefinition {
    Name("KobakoNative")

    Constants(["coreML": true])

    AsyncFunction("sha256") { (url: URL) -> String in
      let file = try FileHandle(forReadingFrom: url)
      defer { try? file.close() }
      var hash = SHA256()
      while let block = try file.read(upToCount: 1 << 20), !block.isEmpty {
        hash.update(data: block)
      }
      return hash.finalize().map { String(format: "%02x", $0) }.joined()
    }

    Function("residentBytes") { () -> Double in
      var info = mach_task_basic_info()
      var count = mach_msg_type_number_t(MemoryLayout<mach_task_basic_info>.size / MemoryLayout<natural_t>.size)
      let result = withUnsafeMutablePointer(to: &info) {
        $0.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
          task_info(mach_task_self_, task_flavor_t(MACH_TASK_BASIC_INFO), $0, &count)
        }
      }
      return result == KERN_SUCCESS ? Double(info.resident_size) : 0
    }

    Class("CoreMLModel", CoreMLModel.self) {
      Constructor { CoreMLModel() }

      AsyncFunction("load") {
        (model: CoreMLModel, path: String, contextTokens: Int, prefillTokens: Int, table: String?) async throws in
        try await model.load(path: path, contextTokens: contextTokens, prefillTokens: prefillTokens, table: table)
      }
      AsyncFunction("reset") { (model: CoreMLModel) async throws in
        try await model.reset()
      }
      AsyncFunction("next") { (model: CoreMLModel, ids: [Int32]) async throws -> Int in
        let logits = try await model.append(ids)
        var best = 0
        for index in 1..<logits.count where logits[index] > logits[best] { best = index }
        return best
      }
      AsyncFunction("logits") { (model: CoreMLModel, ids: [Int32]) async throws -> Data in
        let logits = try await model.append(ids)
        return logits.withUnsafeBufferPointer { Data(buffer: $0) }
      }
      Function("unload") { (model: CoreMLModel) in
        model.unload()
      }
    }
  }
}
