//! `ApiVersions`: which requests are served, in which versions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::VersionRange;

/// Stands for a version of `ApiVersions` that is newer than ours.
pub(super) const UNKNOWN: i16 = -1;

const SERVED: [ApiKey; 22] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::SaslHandshake,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::SaslAuthenticate,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::DescribeCluster,
    ApiKey::CreatePartitions,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::AlterUserScramCredentials,
];

/// The versions in which a request is served, if it is.
pub(super) fn served(key: ApiKey) -> Option<VersionRange> {
    if !SERVED.contains(&key) {
        return None;
    }
    let range = key.valid_versions();
    Some(match key {
        // Version 0 goes on without the framing of requests.
        ApiKey::SaslHandshake => VersionRange { min: 1, ..range },
        // The codec has the response of version 6, but not the request.
        ApiKey::InitProducerId => VersionRange { max: 5, ..range },
        _ => range,
    })
}

/// The answer; in the oldest version with an error if the client's is unknown.
pub(super) fn answer(version: i16) -> ApiVersionsResponse {
    let keys = SERVED.iter().filter_map(|key| {
        let range = served(*key)?;
        Some(ApiVersion::default().with_api_key(*key as i16).with_min_version(range.min).with_max_version(range.max))
    });
    let error = if version == UNKNOWN { ResponseError::UnsupportedVersion.code() } else { 0 };
    ApiVersionsResponse::default().with_error_code(error).with_api_keys(keys.collect())
}
