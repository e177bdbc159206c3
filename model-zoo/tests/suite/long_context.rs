//! Rotary angles beyond the 64 tokens of the reference bundles are those of transformers and of the formula in f64.

use burn::tensor::{Device, Int, Tensor, TensorData};
use model_zoo::rotary::RotaryTable;
use model_zoo::{RopeConfig, RopeScaling};

/// Position, cosines and sines of the four pairs of a head of 8 elements, as transformers 5.23 computes them.
type Row = (usize, [f64; 4], [f64; 4]);

/// Base 10,000.
const PLAIN: [Row; 4] = [
    (
        63,
        [0.985_896_59, 0.999_858_62, 0.808_027_51, 0.998_016_18],
        [0.167_355_7, 0.016_814_09, 0.589_144_77, 0.062_958_34],
    ),
    (
        64,
        [0.391_857_24, 0.993_184_92, 0.802_095_77, 0.997_952_7],
        [0.920_026_06, 0.116_549_3, 0.597_195_45, 0.063_956_32],
    ),
    (
        8_191,
        [-0.646_390_5, -0.655_730_96, 0.973_987_58, -0.330_674_65],
        [-0.763_006_81, 0.754_994_63, 0.226_601_54, 0.943_744_84],
    ),
    (
        131_071,
        [-0.817_983_51, 0.930_127_98, -0.786_407_83, 0.640_311_72],
        [-0.575_241_68, 0.367_235_57, -0.617_707_67, -0.768_115_16],
    ),
];
/// Base 500,000, Llama 3's scaling by 8 of a context of 8,192.
const LLAMA3: [Row; 4] = [
    (
        63,
        [0.985_896_59, -0.716_229_02, 0.999_453_37, 0.999_999_94],
        [0.167_355_7, 0.697_865_31, 0.033_059_28, 0.000_418_82],
    ),
    (
        64,
        [0.391_857_24, -0.741_960_35, 0.999_435_9, 0.999_999_94],
        [0.920_026_06, 0.670_443_71, 0.033_583_83, 0.000_425_46],
    ),
    (
        8_191,
        [-0.646_390_5, 0.988_022_98, -0.401_702_67, 0.998_517_81],
        [-0.763_006_81, 0.154_306_8, -0.915_770_17, 0.054_425_79],
    ),
    (
        131_071,
        [-0.817_983_51, -0.995_121_78, 0.948_304_3, 0.643_799_54],
        [-0.575_241_68, 0.098_654_16, -0.317_362_61, 0.765_194_18],
    ),
];
/// Base 1,000,000, positions divided by 8.
const LINEAR: [Row; 4] = [
    (63, [-0.021_016_82, 0.969_152_09, 0.999_969_01, 1.0], [0.999_779_11, 0.246_463_4, 0.007_874_92, 0.000_249_03]),
    (64, [-0.145_500_03, 0.968_170_29, 0.999_967_99, 1.0], [0.989_358_25, 0.250_292_36, 0.007_999_91, 0.000_252_98]),
    (
        8_191,
        [0.959_884_88, 0.572_006_17, 0.520_060_12, 0.999_475_9],
        [-0.280_394_49, 0.820_249_32, 0.854_129_67, 0.032_372_11],
    ),
    (
        131_071,
        [-0.891_879_86, -0.966_608_11, -0.780_136_94, 0.868_759_87],
        [-0.452_272_36, 0.256_259_17, -0.625_608_74, 0.495_233_51],
    ),
];

fn table(theta: f64, scaling: RopeScaling) -> RotaryTable {
    RotaryTable::new(&RopeConfig { theta, scaling }, 8)
}

/// Cosines and sines at a position.
fn at(table: &RotaryTable, position: usize) -> (Vec<f32>, Vec<f32>) {
    let positions: Tensor<1, Int> = Tensor::from_data(TensorData::new(vec![position as i32], [1]), &Device::flex());
    let rotation = table.rotation(positions, position + 1);
    (rotation.cos.try_into_vec_as::<f32>().unwrap(), rotation.sin.try_into_vec_as::<f32>().unwrap())
}

fn scaled() -> [(&'static str, RotaryTable, [Row; 4]); 3] {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    [
        ("plain", table(10_000.0, RopeScaling::None), PLAIN),
        ("llama3", table(500_000.0, llama3), LLAMA3),
        ("linear", table(1_000_000.0, RopeScaling::Linear { factor: 8.0 }), LINEAR),
    ]
}

#[test]
fn far_positions_have_the_angles_of_transformers() {
    for (name, table, rows) in scaled() {
        for (position, cos, sin) in rows {
            let found = at(&table, position);
            // A unit in the last place of the frequency, at this position.
            let tolerance = 1e-6 + position as f64 * 1.2e-7;
            for pair in 0..4 {
                let (c, s) = (f64::from(found.0[pair]), f64::from(found.1[pair]));
                let apart = (c - cos[pair]).abs().max((s - sin[pair]).abs());
                assert!(apart <= tolerance, "{name}, position {position}, pair {pair}: {apart:e} of {tolerance:e}");
            }
        }
    }
}

#[test]
fn far_positions_follow_the_formula() {
    let plain = (1.0, table(10_000.0, RopeScaling::None));
    let linear = (8.0, table(10_000.0, RopeScaling::Linear { factor: 8.0 }));
    for (divisor, table) in [plain, linear] {
        for position in [65, 1000, 20_000, 100_003] {
            let (cos, sin) = at(&table, position);
            for pair in 0..4 {
                let angle = position as f64 / divisor * 10_000_f64.powf(-(2.0 * pair as f64) / 8.0);
                // Frequency and product are rounded to f32, as in every server.
                let tolerance = 1e-6 + angle * 2.4e-7;
                let apart = (f64::from(cos[pair]) - angle.cos()).abs().max((f64::from(sin[pair]) - angle.sin()).abs());
                assert!(apart <= tolerance, "position {position}, pair {pair}: {apart:e} of {tolerance:e}");
            }
        }
    }
}
