//! The vector of one question in about half the time that ONNX Runtime takes for it, where the processor multiplies 8-bit
//! numbers by AVX-512 VNNI. A question has a dozen tokens: a general runtime's products of matrices are made for more.
//!
//! The same BERT (Devlin et al., 2019) as in `graph.rs`, from the same weights rounded in the same way, and what goes into a product
//! rounded as ONNX Runtime does: so passages that it embedded and questions that this does lie in one space.

#[cfg(target_arch = "x86_64")]
mod attention;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod layer;
#[cfg(target_arch = "x86_64")]
mod linear;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub(super) use vnni::Encoder;

/// There is none for other processors: [`Encoder::open`] says so, and ONNX Runtime embeds questions too.
#[cfg(not(target_arch = "x86_64"))]
pub(super) struct Encoder(std::convert::Infallible);

#[cfg(not(target_arch = "x86_64"))]
impl Encoder {
    pub(super) fn open(_weights: &[u8]) -> Result<Option<Self>, String> {
        Ok(None)
    }

    pub(super) fn embed(&self, _tokens: &[u32]) -> Option<super::Embedding> {
        match self.0 {}
    }
}
