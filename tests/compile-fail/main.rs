//! Mistakes of newcomers: what the compiler says about the programs in this folder. The first lines
//! of each message say what to do. After a change on purpose, run it with `TRYBUILD=overwrite`.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile-fail/*/*.rs");
}
